"""The PPO surrogate: its bounds, and where gradients stop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.algorithms.ppo_loss import ppo_loss

CLIP = {"clip_low": 0.2, "clip_high": 0.28}
numbers = st.floats(-3, 3, allow_nan=False)


def test_on_policy_the_gradient_is_minus_the_advantage():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, _ = ppo_loss(logprobs, logprobs.detach(), torch.tensor([1.5, -0.5]), **CLIP)
    loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.5, 0.5]))


@given(numbers, numbers, numbers)
@settings(deadline=None)
def test_the_loss_is_the_pessimistic_one_of_the_two(new, old, advantage):
    new, old, advantage = (torch.tensor([x], dtype=torch.float64) for x in (new, old, advantage))
    loss, stats = ppo_loss(new, old, advantage, **CLIP)
    ratio = (new - old).exp()
    expected = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.28))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(stats["ratio"], ratio)


@pytest.mark.parametrize(("gap", "advantage", "flows"), [(0.5, 1.0, False), (0.5, -1.0, True), (-0.5, -1.0, False), (-0.5, 1.0, True)])
def test_the_gradient_stops_only_where_moving_on_would_be_rewarded(gap, advantage, flows):
    logprobs = torch.tensor([gap], requires_grad=True)
    loss, stats = ppo_loss(logprobs, torch.zeros(1), torch.tensor([advantage]), **CLIP)
    loss.sum().backward()
    assert bool(logprobs.grad.abs() > 0) is flows
    assert bool(stats["clipped"]) is not flows


def test_the_upper_and_lower_bounds_are_separate():
    gap = torch.tensor([1.25]).log()
    _, wide = ppo_loss(gap, torch.zeros(1), torch.ones(1), clip_low=0.2, clip_high=0.28)
    _, narrow = ppo_loss(gap, torch.zeros(1), torch.ones(1), clip_low=0.2, clip_high=0.2)
    assert not wide["clipped"].any()
    assert narrow["clipped"].all()


@given(numbers, numbers)
@settings(deadline=None)
def test_the_dual_clip_bounds_the_loss_of_bad_actions(new, advantage):
    new, advantage = torch.tensor([new], dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    loss, _ = ppo_loss(new, torch.zeros_like(new), advantage, **CLIP, dual_clip=3.0)
    plain, _ = ppo_loss(new, torch.zeros_like(new), advantage, **CLIP)
    assert bool(advantage >= 0) or bool(loss <= -3 * advantage + 1e-12)
    assert bool(advantage < 0) or bool(loss == plain)


def test_a_dual_clip_that_would_bite_on_policy_is_refused():
    with pytest.raises(ValueError, match="above 1"):
        ppo_loss(torch.zeros(1), torch.zeros(1), torch.ones(1), **CLIP, dual_clip=0.5)
