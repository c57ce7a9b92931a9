"""A run of two ranks that is stopped by a signal, killed and started again ends with the same weights and buffer as one that was not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import process_trees
import pytest
from killing import ARGUMENTS, STEPS, events
from run_server import command, job, ranks
from tiny_run import state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PATIENCE_S = 1200.0
# As launcher_scripts/slurm has it: torchrun passes USR1 on as it does TERM, and gives the ranks time for a step and a save.
TORCHRUN = ["--standalone", "--nproc-per-node=2", "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", "--shutdown-timeout=300"]


class Launched:
    """Two ranks under torchrun."""

    def __init__(self, run_dir: Path, log: Path, cache: str):
        command = [sys.executable, "-m", "torch.distributed.run", *TORCHRUN, "-m", "azr_nemo", *ARGUMENTS, f"run_dir={run_dir}"]
        environment = {**os.environ, "AZR_NEMO_CACHE": cache, "PYTHONUNBUFFERED": "1"}
        self.log = log
        with log.open("wb") as out:
            self.process = process_trees.Process(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)

    def rank(self, number: int) -> int:
        """The process of this rank."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                variables = path.read_bytes().split(b"\0")
                parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # a process of others that has ended or is not ours to read
            if parent == self.process.pid and f"RANK={number}".encode() in variables:
                return int(path.parent.name)
        raise AssertionError(f"rank {number} is not there:\n{self.text()}")

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_it_begins(self, phase: str, count: int = 1) -> None:
        wait_until_it_begins(phase, count, self.log, self.process.poll)

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)


def wait_until_it_begins(phase: str, count: int, log: Path, poll: Callable[[], int | None]) -> None:
    """Until the run whose rank 0 writes this log begins the phase for the count-th time."""
    deadline = time.monotonic() + PATIENCE_S
    while not log.exists() or sum(event.get("name") == phase and event.get("state") == "began" for event in events(log)) < count:
        assert poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.01)


def forked(run_dir: Path, cache: str) -> None:
    """The same two ranks without a launcher, to their end."""
    for ended in ranks(None, 2, *ARGUMENTS, f"run_dir={run_dir}", timeout=PATIENCE_S, AZR_NEMO_CACHE=cache):
        assert ended.code == 0, ended.output


def test_two_ranks_stopped_killed_and_resumed_end_like_two_that_were_not(tmp_path: Path, cache: str) -> None:
    forked(tmp_path / "whole", cache)

    run_dir = tmp_path / "run"
    outcome = run_dir / "outcome"
    stopped = job(None, 2, *ARGUMENTS, f"run_dir={run_dir}", log=tmp_path / "stopped.log", AZR_NEMO_CACHE=cache)
    try:
        wait_until_it_begins("propose", 1, tmp_path / "stopped.log", stopped.runs[0].poll)
        stopped.runs[1].kill(signal.SIGUSR1)  # not rank 0: it must be told
        assert [run.wait(PATIENCE_S).code for run in stopped.runs] == [75, 75]
    finally:
        stopped.end()
    assert outcome.read_text() == "stopped 1 SIGUSR1\n"

    killed = Launched(run_dir, tmp_path / "killed.log", cache)
    killed.wait_until_it_begins("update", 2)
    os.kill(killed.rank(1), signal.SIGKILL)
    assert killed.end() == 1
    assert not outcome.exists()
    assert "resumed after step 1" in killed.text()

    # The launcher is signalled, which passes it on to all its ranks: one request, whoever hears it first.
    launcher = Launched(run_dir, tmp_path / "launcher.log", cache)
    launcher.wait_until_it_begins("propose")
    os.kill(launcher.process.pid, signal.SIGUSR1)
    assert launcher.end() == 1, "torchrun makes 1 of every exit code but 0"
    kind, step, name = outcome.read_text().split()
    assert (kind, name) == ("stopped", "SIGUSR1"), launcher.text()
    assert 1 < int(step) < STEPS

    forked(run_dir, cache)
    assert outcome.read_text() == f"done {STEPS}\n"
    assert state(run_dir, STEPS) == state(tmp_path / "whole", STEPS)
    # When all is done every rank leaves by itself: this one waits for no rank 0.
    alone = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    command(*ARGUMENTS, f"run_dir={run_dir}", timeout=PATIENCE_S, **alone)
