"""What the first version wrote is read by this one: tests/data/run_of_0_1.tar.xz is a run of two steps of a model of 30,000 weights, with that model."""

import json
import tarfile
from pathlib import Path

import pytest
from run_server import command, shared
from safetensors.torch import load_file
from tiny_run import SEEDS, finish, state

ARCHIVE = Path(__file__).parents[1] / "data" / "run_of_0_1.tar.xz"
SAME = [
    "recipe=tiny-1n0g-megatron", "warmup.steps=0", "warmup.batch_size=8", "warmup.programs=100", "platform=cpu", "engine.threads=1",
    "selfplay.batch_size=2", "rollout.estimate_samples=2", "rollout.max_propose_tokens=24", "rollout.max_solve_tokens=16", "data.seed_factor=1",
    f"data.seed_files=[{SEEDS}]", "executor.wall_s=60", "checkpoint.every=1", "checkpoint.keep=1", "logging.tensorboard=false",
]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The directory that holds `run` and `model`."""
    out = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(out, filter="data")
    return out


def test_its_checkpoint_converts_to_the_model_that_it_began_as_within_two_updates(earlier):
    command("convert", str(earlier / "run" / "checkpoints" / "step_000002"), str(earlier / "hf"), "--to", "hf", timeout=120)
    before, after = (load_file(earlier / name / "model.safetensors") for name in ("model", "hf"))
    assert before.keys() == after.keys()
    moved = max((after[name] - before[name]).abs().max().item() for name in before)
    assert 0 < moved < 1e-2


def test_its_report_and_its_rollouts_are_read(earlier):
    assert "step 2" in command("rollouts", str(earlier / "run"), "--limit", "3", timeout=120)
    command("report", str(earlier / "run"), "--out", str(earlier / "report.html"), timeout=120)
    assert (earlier / "report.html").stat().st_size > 10_000
    assert "2 steps" in command("summary", str(earlier / "run"), timeout=120)


def test_it_goes_on_after_its_last_step(earlier):
    run_dir = earlier / "run"
    before = state(run_dir, 2)
    words = ["train", *SAME, f"model.path={earlier / 'model'}", f"run_dir={run_dir}", "eval.items=0", "selfplay.steps=3"]
    said = finish(shared().start(words))
    assert "resumed after step 2" in said
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    after = state(run_dir, 3)
    assert after["metrics"][:3] == before["metrics"]
    assert after["rollouts"][: len(before["rollouts"])] == before["rollouts"]
    assert after["weights"] != before["weights"]
