"""Truncated importance weights correct what the rollout engine drew, up to their cap."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.algorithms.importance_sampling import importance_weights

logprobs = st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1, max_size=20)


@given(logprobs, st.floats(0.5, 5))
@settings(deadline=None)
def test_weights_are_the_ratio_up_to_the_cap(pairs, cap):
    trainer, rollout = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    weights, capped = importance_weights(trainer, rollout, cap)
    for weight, hit, (p, q) in zip(weights.tolist(), capped.tolist(), pairs, strict=True):
        assert weight == pytest.approx(min(math.exp(p - q), cap))
        assert bool(hit) is (math.exp(p - q) > cap)


def test_engines_that_agree_leave_losses_alone():
    weights, capped = importance_weights(torch.tensor([-1.0, -9.0]), torch.tensor([-1.0, -9.0]), 2.0)
    assert weights.tolist() == [1, 1]
    assert capped.tolist() == [0, 0]


def test_no_gradient_flows_through_a_weight():
    weights, _ = importance_weights(torch.zeros(1, requires_grad=True), torch.ones(1), 2.0)
    assert not weights.requires_grad


def test_a_token_that_the_rollout_engine_held_impossible_gets_the_cap():
    weights, _ = importance_weights(torch.tensor([-1.0]), torch.tensor([-1e30]), 2.0)
    assert weights.tolist() == [2]


def test_weighted_samples_of_one_policy_have_the_mean_of_the_other():
    """Exactly, as an expectation over a small vocabulary, while no weight is capped."""
    generator = torch.Generator().manual_seed(0)
    trainer, rollout = torch.randn(2, 6, generator=generator).mul(0.3).log_softmax(-1)
    value = torch.randn(6, generator=generator)
    weights, capped = importance_weights(trainer, rollout, 5.0)
    assert not capped.any()
    torch.testing.assert_close((rollout.exp() * weights * value).sum(), (trainer.exp() * value).sum())


def test_a_cap_of_nothing_is_refused():
    with pytest.raises(ValueError, match="cap"):
        importance_weights(torch.zeros(1), torch.zeros(1), 0.0)
