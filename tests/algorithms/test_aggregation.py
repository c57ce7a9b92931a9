"""Weights make a sum over tokens the mean that is named, however the batch is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.algorithms.aggregation import AGGREGATIONS, token_weights

masks = (
    st.lists(st.integers(0, 7), min_size=1, max_size=9)
    .filter(any)
    .map(lambda lengths: (torch.arange(7)[None] < torch.tensor(lengths)[:, None]).double())
)


@given(masks, st.integers(0, 99))
@settings(deadline=None)
def test_each_mean_is_what_its_name_says(mask, seed):
    losses = torch.randn(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = {name: (token_weights(mask, name) * losses).sum() / mask.sum() for name in AGGREGATIONS}
    torch.testing.assert_close(found["token_mean"], losses[mask > 0].mean())
    rows = [row[counts > 0].mean() for row, counts in zip(losses, mask, strict=True) if counts.any()]
    torch.testing.assert_close(found["sequence_mean"], torch.stack(rows).mean())


@given(masks, st.sampled_from(AGGREGATIONS))
@settings(deadline=None)
def test_weights_sum_to_the_tokens_and_are_zero_beyond_a_response(mask, name):
    weights = token_weights(mask, name)
    assert float(weights.sum()) == pytest.approx(float(mask.sum()))
    assert torch.equal(weights > 0, mask > 0)


def test_responses_of_one_length_have_one_mean():
    mask = torch.ones(3, 4)
    assert torch.equal(token_weights(mask, "sequence_mean"), token_weights(mask, "token_mean"))


def test_a_long_response_weighs_no_more_than_a_short_one_by_sequence():
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    assert token_weights(mask, "sequence_mean").sum(1).tolist() == [2.5, 2.5]
    assert token_weights(mask, "token_mean").sum(1).tolist() == [4, 1]


def test_an_unknown_aggregation_is_refused():
    with pytest.raises(ValueError, match="token_mean, sequence_mean"):
        token_weights(torch.ones(1, 1), "row_mean")
