"""The trainer against transformers and torch's AdamW: same log-probabilities, same update."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS, run_config, training_batch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.selfplay.exchange import TrainingBatch


def reference_scores(model: PreTrainedModel, batch: TrainingBatch, row: int, temperature: float) -> tuple[Tensor, Tensor]:
    prompt, response = batch.prompt_ids[row], batch.response_ids[row]
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1] / temperature
    logp = torch.log_softmax(logits, -1)
    return logp.gather(-1, torch.tensor(response)[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_of_transformers(
    make_actor: Callable[..., Actor], model_dir: Callable[..., Path], family: str, temperature: float
) -> None:
    config = run_config()
    config.rollout.temperature = temperature
    batch = training_batch()
    ours = make_actor(family, config).logprobs(batch.prompt_ids, batch.response_ids)
    model = AutoModelForCausalLM.from_pretrained(model_dir(family)).eval()
    for row, response in enumerate(batch.response_ids):
        with torch.no_grad():
            theirs, _ = reference_scores(model, batch, row, temperature)
        torch.testing.assert_close(ours[row, : len(response)], theirs, rtol=0, atol=1e-5)
        assert ours[row, len(response) :].abs().sum() == 0


@pytest.mark.parametrize("family", ["llama-tied", "qwen2-untied", "qwen3"])
def test_a_ppo_step_is_that_of_a_plain_loop_over_the_rows(
    make_actor: Callable[..., Actor], model_dir: Callable[..., Path], family: str
) -> None:
    config, batch = run_config(), training_batch()
    config.optim.entropy, config.optim.grad_clip, config.optim.lr, config.optim.eps = 0.01, 0.5, 1e-3, 1e-3
    actor = make_actor(family, config)
    metrics = actor.update(batch)

    model = AutoModelForCausalLM.from_pretrained(model_dir(family))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    groups = [{"params": decayed}, {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=config.optim.weight_decay, eps=1e-3)
    tokens = batch.mask.sum()
    policy = entropy = torch.zeros(())
    for row, response in enumerate(batch.response_ids):
        logp, entropies = reference_scores(model, batch, row, 1.0)
        policy = policy - (batch.advantages[row, : len(response)] * torch.exp(logp - logp.detach())).sum() / tokens
        entropy = entropy + entropies.sum() / tokens
    loss = policy - 0.01 * entropy
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()

    assert metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert metrics["pg_loss"] == pytest.approx(float(policy.detach()), abs=1e-5)
    assert metrics["entropy"] == pytest.approx(float(entropy.detach()), abs=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert metrics["tokens"] == float(tokens)
    assert metrics["clip_fraction"] == 0
    expected = model.state_dict()
    for name, tensor in export_weights(actor.model, actor.hf_config):
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=2e-6)
