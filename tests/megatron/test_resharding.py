"""A run saved by one rank goes on under two, tensor-, pipeline- or data-parallel, and back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from resharding_job import LAYOUTS
from run_server import ranks
from tiny_models import run_config, training_batch
from torch import Tensor

from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint, take_snapshot

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def everything(actor: Actor, model_dir: Path) -> dict[str, Tensor]:
    """Weights, master weights and Adam's moments, as a checkpoint of one rank would hold them."""
    return {name: tensor.clone() for name, tensor in take_snapshot(actor, model_dir, copy=True).slices.tensors.items()}


def run(*arguments: Path) -> None:
    for ended in ranks(HERE / "resharding_job.py", 2, *arguments):
        assert ended.code == 0, ended.output


@pytest.mark.parametrize("family", ["llama-tied", "qwen2-untied"])
def test_weights_and_optimizer_survive_a_change_of_layout_and_the_next_step_agrees(
    family: str, make_actor: Callable[..., Actor], model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    config = run_config()
    config.optim.eps = 1e-3
    actor, models = make_actor(family, config), model_dir(family)
    for seed in (1, 2):
        actor.update(training_batch(seed=seed))
    saved = everything(actor, models)
    save_checkpoint(actor, models, tmp_path / "one")
    run(models, tmp_path / "one", tmp_path)
    actor.update(training_batch(seed=7))
    stepped = everything(actor, models)
    assert any(not torch.equal(saved[name], tensor) for name, tensor in stepped.items())
    for layout in LAYOUTS:
        back = make_actor(family, config)
        load_checkpoint(back, tmp_path / layout / "loaded")
        found = everything(back, models)
        assert found.keys() == saved.keys()
        for name, tensor in saved.items():
            assert torch.equal(found[name], tensor), f"{layout}: {name}"
        load_checkpoint(back, tmp_path / layout / "stepped")
        for name, tensor in everything(back, models).items():
            torch.testing.assert_close(tensor, stepped[name], rtol=0, atol=1e-5, msg=f"{layout}: {name}")
