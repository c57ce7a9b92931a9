"""The score of a micro-batch whose rows have been drawn by weights of several ages, without a model."""

from dataclasses import replace

import pytest
import torch
from tiny_models import training_batch

from azr_nemo.megatron.batches import pack
from azr_nemo.megatron.policy import PolicyScore
from azr_nemo.settings.schema import OptimConfig

BATCH = training_batch()
ROWS = len(BATCH.prompt_ids)
FRESH = torch.zeros(ROWS, dtype=torch.long)
MIXED = torch.tensor([0, 1, 0, 2, 1, 0, 0])
(MICRO,) = pack(BATCH.prompt_ids, BATCH.response_ids, BATCH.mask, 4096)
AGES = MIXED[MICRO.rows]
TOKENS = float(BATCH.mask.sum())


def scored(ages, gap=0.1, old=None, batch=BATCH, **optim):
    """Loss, metrics as means over their tokens, and the gradient of each token [n]. gap: trainer's log-probability less the rollout engine's."""
    batch = replace(batch, rollout_logprobs=torch.where(batch.rollout_logprobs.isnan(), batch.rollout_logprobs, -3.0 * batch.mask))
    score = PolicyScore(batch, old, ages, replace(OptimConfig(entropy=0.0), **optim))
    logprobs = torch.full((len(MICRO.rows),), -3.0 + gap, requires_grad=True)
    loss, sums = score(MICRO, logprobs, torch.zeros(len(MICRO.rows)))
    loss.backward()
    return float(loss), {name: float(sums[name]) / score.tokens.get(name, TOKENS) for name in score.names}, logprobs.grad


def advantages():
    return BATCH.advantages[MICRO.rows, MICRO.times]


def test_fresh_rows_move_away_from_the_trainers_own_policy_whatever_drew_them():
    _, metrics, gradient = scored(FRESH)
    torch.testing.assert_close(gradient, -advantages())
    assert metrics["clip_fraction"] == 0
    assert metrics["rollout_kl"] == pytest.approx(-0.1)
    assert not any("age" in name for name in metrics)


def test_older_rows_move_away_from_the_policy_that_drew_them():
    _, metrics, gradient = scored(MIXED)
    expected = torch.where(AGES > 0, torch.tensor(0.1).exp(), torch.tensor(1.0))
    torch.testing.assert_close(gradient, -advantages() * expected)
    assert metrics["clip_fraction"] == 0  # e^0.1 is within 0.2


def test_the_clip_bounds_how_far_older_rows_have_gone():
    _, metrics, gradient = scored(MIXED, gap=0.5)
    gone = (AGES > 0) & (advantages() > 0)
    assert gone.any()
    assert not gradient[gone].any()
    torch.testing.assert_close(gradient[AGES == 0], -advantages()[AGES == 0])
    assert metrics["clip_fraction"] == pytest.approx(float(gone.sum()) / TOKENS)


def test_the_two_engines_are_compared_by_fresh_rows_and_each_age_has_its_ratio():
    _, metrics, _ = scored(MIXED)
    assert metrics["rollout_kl"] == pytest.approx(-0.1)
    assert [metrics["is_weight_age1"], metrics["is_weight_age2"]] == pytest.approx([float(torch.tensor(0.1).exp())] * 2)


def test_where_importance_sampling_is_on_older_rows_are_weighed_and_not_clipped():
    _, metrics, gradient = scored(MIXED, gap=0.5, importance_sampling="on", importance_cap=1.5)
    torch.testing.assert_close(gradient, -advantages() * 1.5)
    assert metrics["clip_fraction"] == 0
    assert metrics["is_capped"] == 1


def test_a_batch_without_fresh_rows_says_nothing_of_the_engines():
    score = PolicyScore(BATCH, None, FRESH + 1, OptimConfig())
    assert score.tokens["rollout_kl"] == 0  # the mean over nothing, which is left out
    assert score.tokens["is_weight_age1"] == TOKENS


def test_a_known_answer_among_older_rows_has_the_ratio_1():
    rollout = BATCH.rollout_logprobs.clone()
    rollout[1] = torch.nan
    _, _, gradient = scored(MIXED, gap=0.5, batch=replace(BATCH, rollout_logprobs=rollout))
    torch.testing.assert_close(gradient[MICRO.rows == 1], -advantages()[MICRO.rows == 1])


def test_what_lies_outside_the_band_is_not_learnt_from_and_counted():
    band = {"importance_sampling": "on", "importance_low": 0.9, "importance_high": 1.05}
    old = BATCH.mask * -3.0
    old[2] += 0.1  # this response alone has gone
    for level in ("token", "sequence", "geometric"):
        _, metrics, gradient = scored(FRESH, gap=0.0, old=old, importance_reject=level, **band)
        assert not gradient[MICRO.rows == 2].any()
        assert gradient[MICRO.rows != 2].abs().sum() > 0
        assert metrics["is_rejected"] == pytest.approx(float(BATCH.mask[2].sum()) / TOKENS)
    _, measured, gradient = scored(FRESH, gap=0.0, old=old, importance_reject="token", **{**band, "importance_sampling": "metrics"})
    assert gradient[MICRO.rows == 2].abs().sum() > 0
    assert measured["is_rejected"] > 0


def test_a_weight_of_the_whole_response_is_its_tokens_product():
    old = BATCH.mask * -2.99
    _, _, gradient = scored(FRESH, gap=0.01, old=old, importance_sampling="on", importance_level="sequence")
    lengths = BATCH.mask.sum(1)[MICRO.rows]
    torch.testing.assert_close(gradient, -advantages() * (0.01 * lengths).exp(), rtol=1e-4, atol=1e-5)
