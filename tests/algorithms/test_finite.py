"""No log-ratio makes a loss, a gradient or a metric that is not a finite number, and no estimator takes a reward that is none."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.algorithms.estimators import ESTIMATORS, Rewarded
from azr_nemo.algorithms.finite import BOUND, bounded
from azr_nemo.algorithms.importance_sampling import importance_weights
from azr_nemo.algorithms.losses import LOSSES, Bounds, Moved

CASES = Path(__file__).parents[3] / "shared" / "cases" / "losses.jsonl"
LOGPROBS = st.floats(-1e4, 0, width=32) | st.sampled_from([0.0, -89.0, -100.0, -1e30])
OTHER = LOGPROBS | st.just(-math.inf)  # an engine that drew a token may say that it had no probability


def learn(name, logprobs, old, advantages, bounds=Bounds(0.2, 0.28), responses=None):
    x = torch.tensor(logprobs, requires_grad=True)
    ids = torch.arange(len(logprobs)) if responses is None else torch.tensor(responses)
    losses, statistics = LOSSES[name](Moved(x, torch.tensor(old), torch.tensor(advantages), ids), bounds)
    losses.sum().backward()
    return losses, x.grad, statistics


@given(
    st.sampled_from(sorted(LOSSES)),
    st.lists(st.tuples(LOGPROBS, OTHER, st.floats(-5, 5, width=32), st.integers(0, 2)), min_size=1, max_size=6),
    st.sampled_from([0.0, 3.0]),
)
def test_any_log_ratio_gives_a_finite_loss_gradient_and_metric(name, tokens, dual):
    columns = [list(column) for column in zip(*tokens, strict=True)]
    losses, gradient, statistics = learn(name, *columns[:3], Bounds(0.2, 0.28, dual), columns[3])
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    assert all(values.isfinite().all() for values in statistics.values())


@given(st.sampled_from(sorted(LOSSES)), st.floats(-BOUND + 1e-3, BOUND - 1e-3), st.floats(-3, 3))
def test_inside_the_bound_nothing_changes(name, gap, advantage):
    """The losses as their papers have them, in float64, with no bound at all."""
    x = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([advantage], dtype=torch.float64)
    ratio = x.exp()
    clipped = ratio.clamp(0.8, 1.28)
    loss = -clipped.detach() * a * x if name == "cispo" else torch.maximum(-a * ratio, -a * clipped)
    (expected,) = torch.autograd.grad(loss.sum(), x)
    ours, _ = LOSSES[name](Moved(x, torch.zeros_like(a), a, torch.tensor([0])), Bounds(0.2, 0.28))
    torch.testing.assert_close(ours, loss)
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), x)[0], expected)


def test_a_bad_token_far_outside_gives_a_bounded_loss_and_no_gradient():
    losses, gradient, statistics = learn("ppo", [0.0], [-100.0], [-1.0])
    assert losses.item() == pytest.approx(math.exp(BOUND))
    assert gradient.item() == 0
    assert statistics["ratio"].item() == pytest.approx(math.exp(BOUND))


def test_the_recorded_log_ratios_are_finite():
    if not CASES.is_file():
        pytest.skip("no recorded cases here")
    for case in map(json.loads, CASES.read_text().splitlines()):
        name, _, dual = case["loss"].partition(" dual_clip=")
        losses, gradient, _ = learn(name, [case["logprob"]], [case["old_logprob"]], [case["advantage"]], Bounds(0.2, 0.2, float(dual or 0)))
        assert losses.isfinite().all(), case
        assert gradient.isfinite().all(), case


@given(LOGPROBS, OTHER)
def test_importance_weights_are_finite_and_capped(trainer, rollout):
    weight, capped = importance_weights(torch.tensor([trainer]), torch.tensor([rollout]), 2.0)
    assert 0 <= weight.item() <= 2
    assert capped.item() == (trainer - rollout > math.log(2))


@given(st.floats(-BOUND, BOUND, width=32))
def test_what_is_bounded_is_itself_within(gap):
    x = torch.tensor([gap], requires_grad=True)
    assert bounded(x).item() == gap
    assert torch.autograd.grad(bounded(x).sum(), x)[0].item() == 1


@given(st.sampled_from(sorted(ESTIMATORS)), st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 3), st.sampled_from([1, 4]))
def test_every_estimator_refuses_a_reward_that_is_no_finite_number(name, wrong, row, rows):
    """Alone in its group as well, where there is nothing to compare it with."""
    rewards = torch.tensor([1.0, -0.5, 0.5, -1.0][:rows])
    rewards[row % rows] = wrong
    ids = torch.tensor([0, 0, 1, 2][:rows])
    judged = Rewarded(rewards, torch.ones(rows, 3), ids, ids, ids == 0)
    with pytest.raises(ValueError, match="every reward must be a finite number"):
        ESTIMATORS[name].compare(judged, "token", 0.9, {})
