"""What the switches of `optim` make of an update: losses, means, mini-batches and importance weights, on a tiny model."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import run_config, training_batch
from torch import Tensor

from azr_nemo.algorithms.losses import LOSSES
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.batches import mini_batches
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.settings.schema import RunConfig

MakeActor = Callable[..., Actor]


def optim(micro_batch_tokens: int = 64, **settings: Any) -> RunConfig:
    config = run_config(micro_batch_tokens=micro_batch_tokens)
    config.optim.eps = 1e-3
    for name, value in settings.items():
        setattr(config.optim, name, value)
    return config


def weights(actor: Actor) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in export_weights(actor.model, actor.hf_config)}


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], atol: float) -> None:
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=atol)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_off_policy_no_loss_depends_on_the_micro_batches(make_actor: MakeActor, loss: str, aggregation: str) -> None:
    results = []
    for tokens in (1, 4096):
        actor = make_actor("llama-tied", optim(tokens, loss=loss, aggregation=aggregation, mini_batches=3, importance_sampling="on"))
        results.append((actor.update(training_batch()), weights(actor)))
    (one, first), (other, second) = results
    for name in ("loss", "pg_loss", "entropy", "clip_fraction", "is_weight_mean", "is_capped", "tokens"):
        assert one[name] == pytest.approx(other[name], abs=1e-5), name
    assert_close(first, second, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_in_one_step_all_losses_learn_the_same(make_actor: MakeActor, aggregation: str) -> None:
    results = []
    for loss in sorted(LOSSES):
        actor = make_actor("llama-tied", optim(loss=loss, aggregation=aggregation))
        assert actor.update(training_batch())["clip_fraction"] == 0
        results.append(weights(actor))
    for other in results[1:]:
        assert_close(results[0], other, atol=1e-5)


def test_the_loss_is_the_mean_that_was_asked_for(make_actor: MakeActor) -> None:
    batch = training_batch()
    rows = [row[mask > 0].mean() for row, mask in zip(batch.advantages, batch.mask, strict=True)]
    by_sequence = make_actor("llama-tied", optim(aggregation="sequence_mean", entropy=0.0)).update(batch)
    by_token = make_actor("llama-tied", optim(entropy=0.0)).update(batch)
    assert by_sequence["loss"] == by_sequence["pg_loss"] == pytest.approx(-float(torch.stack(rows).mean()), abs=1e-5)
    assert by_token["loss"] == by_token["pg_loss"] == pytest.approx(-float(batch.advantages[batch.mask > 0].mean()), abs=1e-5)


@pytest.mark.parametrize(("aggregation", "same"), [("token_mean", True), ("sequence_mean", False)])
def test_the_entropy_bonus_is_averaged_like_the_loss(make_actor: MakeActor, aggregation: str, same: bool) -> None:
    metrics = make_actor("llama-tied", optim(aggregation=aggregation, entropy=0.5)).update(training_batch())
    assert (metrics["loss"] == pytest.approx(metrics["pg_loss"] - 0.5 * metrics["entropy"], abs=1e-5)) is same


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_only_with_mini_batches_does_the_clip_bite(make_actor: MakeActor, loss: str) -> None:
    narrow = {"loss": loss, "clip_low": 1e-4, "clip_high": 1e-4}
    assert make_actor("llama-tied", optim(**narrow)).update(training_batch())["clip_fraction"] == 0
    metrics = make_actor("llama-tied", optim(**narrow, mini_batches=2)).update(training_batch())
    assert 0 < metrics["clip_fraction"] < 1


def test_mini_batches_are_so_many_optimizer_steps_at_one_learning_rate(make_actor: MakeActor) -> None:
    batch = training_batch()
    actor = make_actor("llama-tied", optim(mini_batches=3, lr_warmup_steps=4))
    before = actor.logprobs(batch.prompt_ids, batch.response_ids)
    metrics = [actor.update(replace(batch, rollout_logprobs=(before + 0.1) * batch.mask)) for _ in range(2)]
    assert [step["lr"] for step in metrics] == pytest.approx([0.0025, 0.005])  # the schedule goes by self-play steps
    assert [step["tokens"] for step in metrics] == [float(batch.mask.sum())] * 2
    assert metrics[0]["rollout_kl"] == pytest.approx(0.1, abs=0.01)  # of the policy that drew the rows, in all three steps
    assert {int(state["step"]) for state in actor.optimizer.optimizer.state.values()} == {6}


def test_mini_batches_of_a_run_that_was_resumed_are_those_of_one_that_was_not(make_actor: MakeActor, tmp_path: Path) -> None:
    config = optim(mini_batches=3)
    actor = make_actor("llama-tied", config)
    actor.update(training_batch(seed=0))
    save_checkpoint(actor, Path(actor.hf_config.name_or_path), tmp_path)
    resumed = make_actor("llama-tied", config)
    load_checkpoint(resumed, tmp_path)
    for other in (actor, resumed):
        other.update(training_batch(seed=1))
    assert_close(weights(actor), weights(resumed), atol=0)


def test_the_runs_seed_deals_the_mini_batches(make_actor: MakeActor) -> None:
    results = []
    for seed in (1, 1, 2):
        config = optim(mini_batches=3)
        config.seed = seed
        actor = make_actor("llama-tied", config)
        actor.update(training_batch())
        results.append(weights(actor))
    assert_close(results[0], results[1], atol=0)
    assert any(not torch.equal(tensor, results[2][name]) for name, tensor in results[0].items())


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**63 - 1))
def test_every_row_is_in_exactly_one_mini_batch_of_an_even_size(rows: int, count: int, seed: int) -> None:
    parts = mini_batches(rows, count, seed)
    assert sorted(torch.cat(parts).tolist()) == list(range(rows))
    assert len(parts) == min(rows, count)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_fewer_rows_than_mini_batches_are_a_step_each(make_actor: MakeActor) -> None:
    actor = make_actor("llama-tied", optim(mini_batches=9))
    assert actor.update(training_batch())["tokens"] == float(training_batch().mask.sum())
    assert {int(state["step"]) for state in actor.optimizer.optimizer.state.values()} == {7}


def drawn_elsewhere(actor: Actor, by: float) -> Any:
    """A batch whose rollout engine held each token by `by` nats less likely than the trainer does."""
    batch = training_batch()
    return replace(batch, rollout_logprobs=(actor.logprobs(batch.prompt_ids, batch.response_ids) - by) * batch.mask)


def test_importance_weights_scale_the_policy_loss_up_to_their_cap(make_actor: MakeActor) -> None:
    for by, weight, capped in ((0.3, math.exp(0.3), 0), (5.0, 2.0, 1)):
        actor, scaled = make_actor("llama-tied", optim(importance_sampling="on")), make_actor("llama-tied", optim())
        batch = drawn_elsewhere(actor, by)
        metrics = actor.update(batch)
        scaled.update(replace(batch, advantages=weight * batch.advantages))
        assert metrics["is_weight_mean"] == pytest.approx(weight, abs=1e-4)
        assert metrics["is_capped"] == capped
        assert_close(weights(actor), weights(scaled), atol=1e-5)


def test_what_was_not_sampled_counts_as_if_the_rollout_engine_agreed(make_actor: MakeActor) -> None:
    config = optim(importance_sampling="on", mini_batches=1)
    batch = training_batch()
    agreed = batch.rollout_logprobs.clone()
    agreed[2] = make_actor("llama-tied", config).logprobs(batch.prompt_ids, batch.response_ids)[2]
    unknown = batch.rollout_logprobs.clone()
    unknown[2] = torch.nan
    results = []
    for logprobs in (agreed, unknown):
        actor = make_actor("llama-tied", config)
        results.append((actor.update(replace(batch, rollout_logprobs=logprobs)), weights(actor)))
    for name in ("loss", "rollout_kl", "rollout_kl_k3", "is_weight_mean", "grad_norm"):
        assert results[0][0][name] == pytest.approx(results[1][0][name], abs=1e-5), name
    assert_close(results[0][1], results[1][1], atol=1e-5)


def test_importance_weights_can_be_measured_without_being_used(make_actor: MakeActor) -> None:
    off, measured = make_actor("llama-tied", optim()), make_actor("llama-tied", optim(importance_sampling="metrics"))
    batch = drawn_elsewhere(off, 0.3)
    without, metrics = off.update(batch), measured.update(batch)
    assert metrics.keys() - without.keys() == {"is_weight_mean", "is_capped"}
    assert metrics["is_weight_mean"] == pytest.approx(math.exp(0.3), abs=1e-4)
    assert_close(weights(off), weights(measured), atol=0)


@pytest.mark.parametrize(("dtype", "same"), [("float32", True), ("bfloat16", False)])
def test_the_trainers_head_takes_the_switch_for_fp32_logits(make_actor: MakeActor, dtype: str, same: bool) -> None:
    batch, found = training_batch(), []
    for fp32_logits in (False, True):
        config = run_config(dtype)
        config.model.fp32_logits = fp32_logits
        actor = make_actor("qwen2-untied", config)
        found.append(actor.logprobs(batch.prompt_ids, batch.response_ids))
        assert actor.update(batch)["grad_norm"] > 0
    assert torch.equal(*found) is same
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0.1)


@pytest.mark.parametrize("rollout", [-1000.0, -math.inf, math.nan])
def test_a_rollout_engine_that_is_far_off_leaves_finite_metrics_and_weights(make_actor: MakeActor, rollout: float) -> None:
    batch = training_batch()
    actor = make_actor("llama-tied", optim(importance_sampling="on"))
    metrics = actor.update(replace(batch, rollout_logprobs=torch.where(batch.mask > 0, rollout, 0.0)))
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    assert all(tensor.isfinite().all() for tensor in weights(actor).values())
