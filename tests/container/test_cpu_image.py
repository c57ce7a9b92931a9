"""The `cpu` image is built from the Dockerfile and trains: in a container as `docker run` makes it, without network, as an ordinary user."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from image_build import ROOT, Buildah, timed
from oci_run import Container, Options

# Shorter than the gate's own run: what is learned is of no interest here.
SHORT = (
    "warmup.steps=3 warmup.batch_size=16 warmup.programs=100 selfplay.batch_size=2 eval.items=1 data.seed_rounds=2 data.seed_factor=1 "
    "data.seed_files=[/seeds/seeds.jsonl] checkpoint.every=1 logging.console=plain"
).split()
TRAIN = ["env", "OMP_NUM_THREADS=1", "azr-nemo", "train", "recipe=tiny-1n0g-megatron", "run_dir=/runs/tiny", *SHORT]
HEALTH = ["python3", "-I", "-S", "/usr/local/lib/azr-nemo/healthcheck.py"]
RUNGS = (
    "from azr_nemo.sandbox.local import jail\n"
    "for probe in jail.probe(): print(jail.LETTERS[probe.rung], 'holds' if probe.ok else 'fails', probe.reason)\n"
    "print('chosen', jail.choose(False).describe())"
)
PATIENCE = 1800.0  # seconds, for a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

Start = Callable[..., Container]
Volumes = dict[Path, tuple[str, str]]


def metrics(volumes: Volumes) -> list[dict]:
    runs = next(iter(volumes))
    return [json.loads(line) for line in (runs / "tiny" / "metrics.jsonl").read_text().splitlines()]


def test_two_steps_of_selfplay_run_in_the_jail_as_an_ordinary_user(start: Start, volumes: Volumes):
    container = start([*TRAIN, "selfplay.steps=2"], Options(volumes))
    assert timed("warm start, seeding and two steps", lambda: container.wait(PATIENCE)) == 0, container.output
    print(container.output)
    assert "executor: local executor, rung C (landlock" in container.output  # Docker's default filter allows no namespaces
    assert [row["step"] for row in metrics(volumes)] == [0, 1, 2]
    written = [path for path in next(iter(volumes)).rglob("*")]
    assert {path.stat().st_uid for path in written} == {1000}


def test_a_second_container_resumes_from_the_mounted_run_directory_and_is_healthy(start: Start, volumes: Volumes):
    before = metrics(volumes)
    container = start([*TRAIN, "selfplay.steps=3"], Options(volumes))
    time.sleep(3)
    health = container.execute(*HEALTH)
    assert container.wait(PATIENCE) == 0, container.output
    assert (health.returncode, health.stdout) == (0, "healthy\n"), health
    assert "resumed after step 2" in container.output
    assert "warm_start" not in container.output
    assert metrics(volumes)[: len(before)] == before
    assert [row["step"] for row in metrics(volumes)] == [0, 1, 2, 3]


def test_a_stopped_container_saves_its_step(start: Start, volumes: Volumes):
    container = start([*TRAIN, "selfplay.steps=50"], Options(volumes))
    deadline = time.monotonic() + PATIENCE
    while "step 4/50" not in container.output and time.monotonic() < deadline:
        time.sleep(0.5)
    container.signal("TERM")  # to process 1, as `docker stop`
    assert container.wait(PATIENCE) == 75, container.output  # stopped and saved: start it again
    steps = [row["step"] for row in metrics(volumes)]
    assert steps[-1] >= 4
    assert steps == list(range(len(steps)))
    resumed = start([*TRAIN, f"selfplay.steps={steps[-1]}"], Options(volumes))
    assert resumed.wait(PATIENCE) == 0
    assert f"all {steps[-1]} steps are done" in resumed.output


def test_a_run_directory_that_cannot_be_written_ends_with_one_sentence_and_exit_code_2(start: Start, volumes: Volumes, tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)  # of root
    mounts = {closed: ("/runs", "rw"), **{source: target for source, target in volumes.items() if target[0] != "/runs"}}
    container = start([*TRAIN, "selfplay.steps=2"], Options(mounts))
    assert container.wait(PATIENCE) == 2
    (sentence,) = container.output.strip().splitlines()
    assert sentence.endswith("run_dir=/runs/tiny cannot be written (Permission denied): choose another with run_dir=DIR")
    assert not list(closed.iterdir())
    unhealthy = start(HEALTH, Options(mounts))
    assert unhealthy.wait(PATIENCE) == 1
    assert unhealthy.output == "/runs cannot be written by user 1000: mount a directory that can\n"


def test_any_user_can_run_the_image_on_a_directory_of_its_own(start: Start, volumes: Volumes, tmp_path: Path):
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.chown(mine, 4321, 4321)
    container = start(["azr-nemo", "doctor"], Options({mine: ("/runs", "rw")}, user="4321:4321"))
    assert container.wait(PATIENCE) == 0, container.output
    assert "not writable" not in container.output


@pytest.mark.parametrize(
    ("filter", "chosen"), [("docker", "rung C (landlock"), ("podman", "rung A (bubblewrap"), ("unconfined", "rung A (bubblewrap")]
)
def test_which_rung_of_the_jail_a_container_gives(start: Start, filter: str, chosen: str):
    container = start(["python", "-c", RUNGS], Options(filter=filter))
    assert container.wait(PATIENCE) == 0, container.output
    print(f"\nsystem-call filter: {filter}\n{container.output}")
    assert f"chosen {chosen}" in container.output


def test_the_image_is_labelled_and_runs_as_an_ordinary_user(storage: Buildah, image: str):
    config = storage.config(image)
    assert config["User"] == "1000:1000"
    assert set(config["Volumes"]) == {"/runs", "/cache"}
    assert config["Entrypoint"] == ["tini", "--"]
    assert config["Cmd"] == ["azr-nemo-demo"]
    assert config["Healthcheck"]["Test"] == ["CMD", *HEALTH]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_image_holds_what_a_run_needs_and_nothing_of_the_machine_that_built_it(storage: Buildah, image: str):
    root = storage.root(image)
    site = next(root.glob("opt/venv/lib/python3.*/site-packages"))
    assert (site / "azr_nemo" / "conf" / "config.yaml").is_file()
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert (site / "azr_nemo" / "recipes" / recipe.name).is_file()
    assert not (root / "source").exists()
    assert not list((root / "mnt").rglob("*.*"))
    assert (root / "etc" / "pip.conf").stat().st_size == 0
    assert not list((root / "root").glob(".cache/**/*.whl"))
    locked = {
        line.partition("==")[0].lower() for line in (ROOT / "requirements" / "container-cpu.lock").read_text().splitlines() if "==" in line
    }
    installed = {path.name.partition("-")[0].lower().replace("_", "-") for path in site.glob("*.dist-info")}
    assert installed - {name.replace("_", "-") for name in locked} == {"azr-nemo", "pip", "setuptools"}
