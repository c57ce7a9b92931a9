"""The health check and the default command of the images, outside of one."""

import fcntl
import os
import signal
import stat
import sys
import time
from pathlib import Path

import process_trees
import pytest
from image_build import ROOT

DOCKER = Path(__file__).parents[2] / "docker"


def check(runs: Path, longest_s: float = 100) -> tuple[int, str]:
    environment = {"AZR_NEMO_RUNS": str(runs), "AZR_NEMO_HEALTH_S": str(longest_s)}
    command = [sys.executable, "-I", "-S", str(DOCKER / "healthcheck.py")]
    done = process_trees.run(command, env=environment, timeout=60)
    return done.returncode, done.stdout.strip()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in (".lock", "metrics.jsonl"):
        (run / name).touch()
    return run


def age(run_dir: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in run_dir.rglob("*"):
        os.utime(path, (then, then))


def test_a_container_without_a_run_is_healthy(tmp_path: Path):
    assert check(tmp_path) == (0, "healthy")


def test_a_run_that_writes_is_healthy_and_one_that_hangs_is_not(run_dir: Path):
    with (run_dir / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        age(run_dir, 50)
        assert check(run_dir.parent) == (0, "healthy")
        age(run_dir, 500)
        code, sentence = check(run_dir.parent)
        assert code == 1
        assert sentence == f"the run in {run_dir} has written nothing for 500 s (AZR_NEMO_HEALTH_S=100): it hangs"
        (run_dir / "checkpoints" / "step").touch()
        assert check(run_dir.parent) == (0, "healthy")


def test_a_run_that_ended_long_ago_is_no_complaint(run_dir: Path):
    age(run_dir, 500)
    assert check(run_dir.parent) == (0, "healthy")


def test_a_volume_that_is_not_there_is_unhealthy(tmp_path: Path):
    assert check(tmp_path / "none") == (1, f"{tmp_path / 'none'} cannot be written by user {os.getuid()}: mount a directory that can")


@pytest.fixture
def demo(tmp_path: Path):
    """The demo script with an azr-nemo that writes down how it was called; in `train` it waits for a file named go, or ends well when it is told to
    stop."""
    program = tmp_path / "bin" / "azr-nemo"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
[ "$1" = train ] || exit 0
trap 'echo stopped >> {tmp_path}/calls; exit 0' TERM
touch {tmp_path}/training
while [ ! -e {tmp_path}/go ]; do sleep 0.05; done
exit "$(cat {tmp_path}/go)"
""")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "RUN_DIR": str(tmp_path / "run")}
    with process_trees.Process(["sh", DOCKER / "demo.sh"], env=environment) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "training").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process, tmp_path


def go(folder: Path, code: str) -> None:
    """Lets the run end with this code."""
    (folder / "going").write_text(code)
    (folder / "going").rename(folder / "go")


def test_the_default_command_trains_and_then_prints_the_summary(demo):
    process, folder = demo
    go(folder, "0")
    assert process.wait(60) == 0
    train, summary = (folder / "calls").read_text().splitlines()
    taste = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("TASTE := ")).removeprefix("TASTE := ")
    assert train == f"train recipe=smollm2_135m-1n0g-megatron run_dir={folder}/run selfplay.steps=3 {taste}"
    assert summary == f"summary {folder}/run"


def test_the_default_command_ends_with_the_exit_code_of_the_run(demo):
    process, folder = demo
    go(folder, "2")
    assert process.wait(60) == 2
    assert len((folder / "calls").read_text().splitlines()) == 1


def test_a_stop_is_passed_to_the_run_and_waited_for(demo):
    process, folder = demo
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "stopped" in (folder / "calls").read_text()
