"""A run whose weights are no longer finite ends with a sentence, and what was good before is there and goes on."""

import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from tiny_run import finish, refused, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, which is sound."""
    run_dir = tmp_path_factory.mktemp("good")
    finish(start(run_dir, "selfplay.steps=1", "eval.items=0"))
    return run_dir


def everything_is_finite(weights: Path) -> bool:
    for file in weights.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            if not all(opened.get_tensor(name).isfinite().all() for name in opened.keys()):  # noqa: SIM118 - not a dictionary
                return False
    return True


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_a_run_that_diverges_keeps_its_last_good_checkpoint_and_goes_on_from_it(good: Path, tmp_path: Path, asynchronous: str) -> None:
    run_dir = Path(shutil.copytree(good, tmp_path / "run"))
    settings = ["selfplay.steps=3", "eval.items=0", "checkpoint.keep=1", f"checkpoint.asynchronous={asynchronous}"]
    last = run_dir / "checkpoints" / "step_000001"
    sentence = refused(start(run_dir, *settings, "optim.lr=1e30"))
    assert "step 2: the weights are no longer finite after the update with optim.lr=1e+30" in sentence
    assert sentence.endswith(f"lower optim.lr and give the same command again, it goes on from {last}, the last good checkpoint")
    assert last.is_dir()
    assert not (run_dir / "outcome").exists()
    assert not list((run_dir / "checkpoints").glob(".writing*"))
    assert "resumed after step 1" in finish(start(run_dir, *settings, "optim.lr=1e-6"))
    assert everything_is_finite(run_dir / "checkpoints" / "step_000003" / "weights")
    assert (run_dir / "outcome").read_text() == "done 3\n"
