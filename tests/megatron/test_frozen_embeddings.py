"""Without `optim.train_embeddings` the embedding and the output layer stay bit for bit, all else learns as before, and checkpoints hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import run_config, training_batch

from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.schema import RunConfig

FROZEN = ("model.embed_tokens.weight", "lm_head.weight")


def frozen() -> RunConfig:
    config = run_config()
    config.optim.train_embeddings = False
    return config


def weights(actor: Actor) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in export_weights(actor.model, actor.hf_config)}


@pytest.mark.parametrize("family", ["llama-untied", "qwen2-tied"])
def test_embeddings_stay_and_the_first_step_of_all_else_is_the_same(make_actor: Callable[..., Actor], family: str) -> None:
    ours, whole = make_actor(family, frozen()), make_actor(family, run_config())
    before = weights(ours)
    metrics = ours.update(training_batch()), whole.update(training_batch())
    after, other = weights(ours), weights(whole)
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"])
    assert metrics[0]["grad_norm"] < metrics[1]["grad_norm"]
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == (name in FROZEN), name
        if name not in FROZEN:
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-3)


def test_a_checkpoint_without_their_moments_goes_on_bit_for_bit(
    make_actor: Callable[..., Actor], model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    actor = make_actor("qwen2-tied", frozen())
    actor.update(training_batch())
    save_checkpoint(actor, model_dir("qwen2-tied"), tmp_path / "checkpoint")
    actor.update(training_batch())
    expected = weights(actor)
    again = make_actor("qwen2-tied", frozen())
    load_checkpoint(again, tmp_path / "checkpoint")
    again.update(training_batch())
    found = weights(again)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["engine.pipeline_parallel=2"], "optim.train_embeddings=false is for engine.pipeline_parallel=1"),
        (["engine.name=aligner", "rollout.name=nemo"], "optim.train_embeddings=false is for engine=megatron"),
    ],
)
def test_where_it_cannot_be_is_said(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_settings(["model.path=models/none", "optim.train_embeddings=false", *overrides])


def test_gradients_have_no_memory_between_updates(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor("qwen2-tied")
    losses = [actor.update(training_batch())["loss"] for _ in range(2)]
    assert sum(buffer.grad_data.untyped_storage().size() for buffer in actor.model.buffers) == 0
    assert all(parameter.grad is None for parameter in actor.model.parameters())
    assert losses[0] != losses[1]
