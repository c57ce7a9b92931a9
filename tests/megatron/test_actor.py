from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_models import run_config, training_batch
from torch import Tensor

from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.selfplay.exchange import Example

MakeActor = Callable[..., Actor]


def weights(actor: Actor) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in export_weights(actor.model, actor.hf_config)}


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], atol: float) -> None:
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=atol)


def examples() -> list[Example]:
    batch = training_batch()
    return [Example(prompt, response) for prompt, response in zip(batch.prompt_ids, batch.response_ids, strict=True)]


def test_the_update_does_not_depend_on_the_micro_batches(make_actor: MakeActor) -> None:
    results = []
    for tokens in (1, 40, 4096):
        config = run_config(micro_batch_tokens=tokens)
        config.optim.eps = 1e-3
        actor = make_actor("llama-tied", config)
        results.append((actor.update(training_batch()), weights(actor)))
    for metrics, after in results[1:]:
        assert metrics["loss"] == pytest.approx(results[0][0]["loss"], abs=1e-6)
        assert metrics["grad_norm"] == pytest.approx(results[0][0]["grad_norm"], rel=1e-5)
        assert_close(results[0][1], after, atol=1e-5)


def test_masked_out_tokens_are_not_learnt(make_actor: MakeActor) -> None:
    batch = training_batch()
    batch.mask[0] = 0
    loud = replace(batch, advantages=batch.advantages.clone())
    loud.advantages[0] = 1e6
    first, second = make_actor(), make_actor()
    assert first.update(batch)["tokens"] == second.update(loud)["tokens"] == float(batch.mask.sum())
    assert_close(weights(first), weights(second), atol=0)


def test_recomputing_activations_changes_nothing(make_actor: MakeActor) -> None:
    plain, recomputed = make_actor("qwen3"), make_actor("qwen3", run_config(recompute=True))
    for _ in range(2):
        plain.update(training_batch())
        recomputed.update(training_batch())
    assert_close(weights(plain), weights(recomputed), atol=0)


def test_advantage_moves_log_probabilities_its_way(make_actor: MakeActor) -> None:
    batch = training_batch()
    actor = make_actor()
    before = actor.logprobs(batch.prompt_ids, batch.response_ids)
    for _ in range(5):
        actor.update(replace(batch, advantages=batch.mask.clone()))
    assert (actor.logprobs(batch.prompt_ids, batch.response_ids) - before).sum() > 0


def test_the_divergence_from_the_rollout_is_measured(make_actor: MakeActor) -> None:
    batch = training_batch()
    actor = make_actor()
    actual = actor.logprobs(batch.prompt_ids, batch.response_ids)
    metrics = actor.update(replace(batch, rollout_logprobs=(actual + 0.1) * batch.mask))
    assert metrics["rollout_kl"] == pytest.approx(0.1, abs=1e-5)
    assert metrics["rollout_kl_k3"] == pytest.approx(torch.tensor(-0.1).exp().item() - 1 + 0.1, abs=1e-5)


def test_supervision_learns_its_examples(make_actor: MakeActor) -> None:
    config = run_config("bfloat16")
    config.warmup.lr = 1e-2
    actor = make_actor("llama-tied", config)
    losses = [actor.supervise(examples())["loss"] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


def test_self_play_after_a_warm_start_begins_with_a_new_optimizer(make_actor: MakeActor) -> None:
    """So that a run which reuses warm-started weights continues exactly like the run that made them."""
    config = run_config()
    config.optim.lr = 1e-4
    actor, twin = make_actor("llama-tied", config), make_actor("llama-tied", config)
    actor.supervise(examples())
    twin.model.load_state_dict(actor.model.state_dict())
    twin.reset_optimizer()
    assert actor.update(training_batch())["lr"] == 1e-4
    twin.update(training_batch())
    assert_close(weights(actor), weights(twin), atol=0)


def test_the_learning_rate_warms_up_linearly(make_actor: MakeActor) -> None:
    config = run_config()
    config.optim.lr_warmup_steps = 4
    actor = make_actor("llama-tied", config)
    assert [actor.update(training_batch())["lr"] for _ in range(6)] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_the_learning_rate_falls_to_a_tenth_where_it_stays(make_actor: MakeActor) -> None:
    config = run_config()
    config.optim.lr_warmup_steps, config.optim.lr_decay_steps = 2, 3
    actor = make_actor("llama-tied", config)
    assert [actor.update(training_batch())["lr"] for _ in range(7)] == pytest.approx([0.005, 0.01, 0.007, 0.004, 0.001, 0.001, 0.001])


def test_without_clipping_the_norm_is_still_measured(make_actor: MakeActor) -> None:
    config = run_config()
    config.optim.grad_clip = 0.0
    assert make_actor("llama-tied", config).update(training_batch())["grad_norm"] > 0


def test_a_batch_without_response_tokens_is_refused(make_actor: MakeActor) -> None:
    batch = training_batch()
    batch.mask.zero_()
    with pytest.raises(ValueError, match="no response token"):
        make_actor().update(batch)


def test_the_distributed_optimizer_needs_transformer_engine(make_actor: MakeActor) -> None:
    with pytest.raises(UserError, match=r"engine\.distributed_optimizer=true needs TransformerEngine"):
        make_actor("llama-tied", run_config(distributed_optimizer=True))
