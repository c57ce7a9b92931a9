"""PPO, GSPO and CISPO against each other and against their papers: equal where they must be, and clipped where each says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.algorithms.aggregation import AGGREGATIONS, token_weights
from azr_nemo.algorithms.cispo_loss import cispo_loss
from azr_nemo.algorithms.gspo_loss import gspo_loss
from azr_nemo.algorithms.losses import LOSSES, Bounds, Moved
from azr_nemo.algorithms.ppo_loss import ppo_loss

CLIP = {"clip_low": 0.2, "clip_high": 0.28}
BOUNDS = Bounds(0.2, 0.28)


@st.composite
def responses(draw, longest=6):
    """(logprobs, old log-probabilities, advantages, responses), each [n]: all tokens of a response have its advantage; their order is any."""
    lengths = draw(st.lists(st.integers(1, longest), min_size=1, max_size=5))
    ids = draw(st.permutations([row for row, length in enumerate(lengths) for _ in range(length)]))
    number = st.floats(-2, 2).filter(lambda x: abs(x) > 1e-3)
    per_row = torch.tensor([draw(number) for _ in lengths], dtype=torch.float64)
    old = torch.tensor([draw(st.floats(-6, 0)) for _ in ids], dtype=torch.float64)
    gap = torch.tensor([draw(st.floats(-1, 1)) for _ in ids], dtype=torch.float64)
    ids = torch.tensor(ids)
    return old + gap, old, per_row[ids], ids


def gradient(loss_of, logprobs):
    """Of the losses' weighted sum, with respect to the log-probabilities."""
    logprobs = logprobs.clone().requires_grad_()
    loss_of(logprobs).backward()
    return logprobs.grad


@given(responses(longest=1))
@settings(deadline=None, max_examples=40)
def test_gspo_of_one_token_responses_is_ppo(batch):
    logprobs, old, advantages, ids = batch
    ours, stats = gspo_loss(logprobs, old, advantages, ids, **CLIP)
    theirs, expected = ppo_loss(logprobs, old, advantages, **CLIP)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(stats, expected)
    torch.testing.assert_close(
        gradient(lambda x: gspo_loss(x, old, advantages, ids, **CLIP)[0].sum(), logprobs),
        gradient(lambda x: ppo_loss(x, old, advantages, **CLIP)[0].sum(), logprobs),
    )


@given(responses())
@settings(deadline=None, max_examples=40)
def test_gspo_is_its_papers_objective(batch):
    """Equation by equation over responses: the mean over them of the clipped s_i * A_i, and its gradient."""
    logprobs, old, advantages, ids = batch
    rows = ids.unique()

    def papers(x):
        total = torch.zeros((), dtype=x.dtype)
        for row in rows:
            mine = ids == row
            s = (x[mine] - old[mine]).mean().exp()
            a = advantages[mine][0]
            total = total - torch.minimum(s * a, s.clamp(0.8, 1.28) * a)
        return total / len(rows)

    def ours(x):
        lengths = (ids[:, None] == ids).sum(1)
        return (gspo_loss(x, old, advantages, ids, **CLIP)[0] / lengths).sum() / len(rows)

    torch.testing.assert_close(ours(logprobs), papers(logprobs))
    torch.testing.assert_close(gradient(ours, logprobs), gradient(papers, logprobs))


@given(responses())
@settings(deadline=None, max_examples=40)
def test_gspo_clips_whole_responses(batch):
    logprobs, old, advantages, ids = batch
    _, stats = gspo_loss(logprobs, old, advantages, ids, **CLIP)
    flows = gradient(lambda x: gspo_loss(x, old, advantages, ids, **CLIP)[0].sum(), logprobs) != 0
    for row in ids.unique():
        assert stats["clipped"][ids == row].unique().numel() == 1
        assert stats["ratio"][ids == row].unique().numel() == 1
    assert torch.equal(flows, stats["clipped"] == 0)


def test_gspo_stops_for_a_response_what_ppo_stops_for_a_token():
    """One token moved far and three back: on the whole the response has not moved."""
    gap, ids = torch.tensor([0.6, -0.2, -0.2, -0.2]), torch.zeros(4, dtype=torch.long)
    _, tokens = ppo_loss(gap, torch.zeros(4), torch.ones(4), **CLIP)
    _, whole = gspo_loss(gap, torch.zeros(4), torch.ones(4), ids, clip_low=3e-4, clip_high=4e-4)
    assert tokens["clipped"].tolist() == [1, 0, 0, 0]
    assert whole["clipped"].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(whole["ratio"], torch.ones(4))


@given(responses())
@settings(deadline=None, max_examples=40)
def test_the_gradient_of_cispo_is_the_clipped_ratio_and_never_vanishes(batch):
    logprobs, old, advantages, _ = batch
    found = gradient(lambda x: cispo_loss(x, old, advantages, **CLIP)[0].sum(), logprobs)
    ratio = (logprobs - old).exp()
    torch.testing.assert_close(found, -advantages * ratio.clamp(0.8, 1.28))
    assert found.all()
    _, stats = cispo_loss(logprobs, old, advantages, **CLIP)
    assert torch.equal(stats["clipped"], ((ratio < 0.8) | (ratio > 1.28)).double().float())


def test_cispo_without_a_lower_bound_lets_a_weight_fall_as_it_will():
    _, stats = cispo_loss(torch.tensor([-5.0, 5.0]), torch.zeros(2), torch.ones(2), clip_low=1.0, clip_high=0.2)
    assert stats["clipped"].tolist() == [0, 1]


@given(responses(), st.sampled_from(sorted(LOSSES)), st.sampled_from(AGGREGATIONS))
@settings(deadline=None, max_examples=40)
def test_on_policy_all_losses_have_the_gradient_of_reinforce(batch, name, aggregation):
    """GSPO's ratio is a mean over the response, so a token moves it by 1 / length; but the loss is there once for each of its tokens."""
    logprobs, _, advantages, ids = batch
    mask = torch.stack([ids == row for row in ids.unique()]).double()
    weights = token_weights(mask, aggregation).sum(0)

    def loss(x):
        losses, stats = LOSSES[name](Moved(x, x.detach(), advantages, ids), BOUNDS)
        assert not stats["clipped"].any()
        return (losses * weights).sum()

    torch.testing.assert_close(gradient(loss, logprobs), -advantages * weights)


@given(responses(), st.sampled_from(sorted(LOSSES)))
@settings(deadline=None, max_examples=40)
def test_a_clip_that_is_wide_enough_never_clips(batch, name):
    logprobs, old, advantages, ids = batch
    _, stats = LOSSES[name](Moved(logprobs, old, advantages, ids), Bounds(1.0, 10.0))
    assert not stats["clipped"].any()
    _, stats = LOSSES[name](Moved(old - 1, old, -advantages.abs(), ids), BOUNDS)
    assert stats["clipped"].all()  # every token has become much less likely, as was wanted


def test_the_dual_clip_reaches_ppo():
    gap, advantages, ids = torch.tensor([2.0]), torch.tensor([-1.0]), torch.tensor([0])
    losses, _ = LOSSES["ppo"](Moved(gap, torch.zeros(1), advantages, ids), Bounds(0.2, 0.2, dual=3.0))
    assert losses.item() == pytest.approx(3.0)
