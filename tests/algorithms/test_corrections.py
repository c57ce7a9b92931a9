"""What is done to responses that another policy has drawn: weights of whole responses, and bands outside which nothing is learnt."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.algorithms.importance_rejection import LEVELS, kept_within
from azr_nemo.algorithms.responses import response_sums
from azr_nemo.algorithms.sequence_importance import sequence_importance_weights

tokens = st.lists(st.tuples(st.floats(-5, 0), st.floats(-5, 0), st.integers(0, 3)), min_size=1, max_size=20)


def columns(rows):
    trainer, rollout, responses = zip(*rows, strict=True)
    return torch.tensor(trainer, dtype=torch.float64), torch.tensor(rollout, dtype=torch.float64), torch.tensor(responses)


@given(tokens, st.floats(0.5, 5))
def test_a_responses_weight_is_the_product_of_its_tokens_up_to_the_cap(rows, cap):
    trainer, rollout, responses = columns(rows)
    weights, capped = sequence_importance_weights(trainer, rollout, responses, cap)
    for weight, hit, response in zip(weights.tolist(), capped.tolist(), responses.tolist(), strict=True):
        product = math.exp(max(-20.0, min(20.0, sum(p - q for p, q, other in rows if other == response))))
        assert weight == pytest.approx(min(product, cap))
        assert bool(hit) is (product > cap) or product == pytest.approx(cap)


@given(tokens, st.sampled_from(LEVELS))
def test_responses_alone_are_thrown_away_as_a_whole(rows, level):
    trainer, rollout, responses = columns(rows)
    kept = kept_within(trainer, rollout, responses, level, 0.8, 1.25)
    for response in set(responses.tolist()):
        mine = kept[responses == response].tolist()
        gaps = [p - q for p, q, other in rows if other == response]
        if level == "token":
            assert mine == [float(0.8 <= math.exp(gap) <= 1.25) for gap in gaps]
        else:
            whole = sum(gaps) / (len(gaps) if level == "geometric" else 1)
            assert set(mine) == {float(math.log(0.8) <= whole <= math.log(1.25))}


def test_a_geometric_mean_does_not_depend_on_the_length():
    gaps = torch.full((1000,), 0.01)
    nothing, one = torch.zeros(1000), torch.zeros(1000, dtype=torch.long)
    assert kept_within(gaps, nothing, one, "geometric", 0.98, 1.02).all()
    assert not kept_within(gaps, nothing, one, "sequence", 0.5, 2.0).any()


def test_no_gradient_flows_through_weights_and_bands():
    trainer, rollout, responses = torch.zeros(3, requires_grad=True), torch.ones(3), torch.tensor([0, 0, 1])
    assert not sequence_importance_weights(trainer, rollout, responses, 2.0)[0].requires_grad
    assert not any(kept_within(trainer, rollout, responses, level, 0.5, 2.0).requires_grad for level in LEVELS)


def test_sums_are_of_each_response_wherever_its_tokens_lie():
    sums, lengths = response_sums(torch.tensor([1.0, 10.0, 2.0, 4.0]), torch.tensor([7, 3, 7, 7]))
    assert sums.tolist() == [7, 10, 7, 7]
    assert lengths.tolist() == [3, 1, 3, 3]


@pytest.mark.parametrize(("level", "low", "high"), [("turn", 0.5, 2.0), ("token", 0.0, 2.0), ("token", 2.0, 1.0)])
def test_a_band_that_is_none_is_refused(level, low, high):
    with pytest.raises(ValueError, match="level is one of"):
        kept_within(torch.zeros(1), torch.zeros(1), torch.zeros(1), level, low, high)


def test_a_cap_of_nothing_is_refused():
    with pytest.raises(ValueError, match="cap"):
        sequence_importance_weights(torch.zeros(1), torch.zeros(1), torch.zeros(1), 0.0)
