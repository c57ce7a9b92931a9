"""TRR++ equals the published formula and stays silent where a group carries no signal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.algorithms.trr_plus_plus import trr_plus_plus


def published(rewards, mask):
    """One group as the published code computes it: returns repeated over tokens, masked mean, masked unbiased variance, rsqrt."""
    returns = rewards[:, None] * mask
    n = mask.sum()
    mean = (returns * mask).sum() / n
    variance = ((returns - mean) ** 2 * mask).sum() / n * n / (n - 1)
    return (returns - mean) / np.sqrt(variance + 1e-8) * mask


batches = st.integers(2, 40).flatmap(
    lambda rows: st.tuples(
        st.lists(st.sampled_from([-1.0, -0.5, 0.125, 0.5, 0.875, 1.0]), min_size=rows, max_size=rows),
        st.lists(st.integers(1, 12), min_size=rows, max_size=rows),
        st.lists(st.integers(0, 5), min_size=rows, max_size=rows),
    )
)


def tensors(batch):
    rewards, lengths, groups = batch
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).double()
    return torch.tensor(rewards, dtype=torch.float64), mask, torch.tensor(groups)


@given(batches)
@settings(deadline=None, max_examples=settings().max_examples * 2)
def test_each_group_is_whitened_over_its_tokens_as_the_published_code_does(batch):
    rewards, mask, groups = tensors(batch)
    advantages = trr_plus_plus(rewards, mask, groups)
    for group in groups.unique():
        rows = groups == group
        if rows.sum() > 1 and rewards[rows].unique().numel() > 1:
            expected = published(rewards[rows].numpy(), mask[rows].numpy())
            np.testing.assert_allclose(advantages[rows].numpy(), expected, atol=1e-9)


@given(batches)
@settings(deadline=None)
def test_a_group_with_signal_has_zero_mean_and_unit_variance_over_tokens(batch):
    rewards, mask, groups = tensors(batch)
    advantages = trr_plus_plus(rewards, mask, groups)
    for group in groups.unique():
        rows = groups == group
        values = advantages[rows][mask[rows] > 0]
        if rows.sum() > 1 and rewards[rows].unique().numel() > 1:
            assert abs(values.mean()) < 1e-9
            assert abs(values.var(unbiased=True) - 1) < 1e-4
        else:
            assert not values.any()


@given(batches)
@settings(deadline=None)
def test_groups_do_not_see_each_other(batch):
    rewards, mask, groups = tensors(batch)
    together = trr_plus_plus(rewards, mask, groups)
    for group in groups.unique():
        rows = groups == group
        assert torch.equal(together[rows], trr_plus_plus(rewards[rows], mask[rows], groups[rows]))


def test_a_group_of_one_row_gives_zeros():
    assert not trr_plus_plus(torch.tensor([1.0]), torch.ones(1, 7), torch.tensor([3])).any()


def test_equal_rewards_give_exact_zeros_in_single_precision():
    rewards = torch.full((7,), -0.1)
    assert not trr_plus_plus(rewards, torch.ones(7, 333), torch.zeros(7, dtype=torch.long)).any()


def test_padding_gets_no_advantage():
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    advantages = trr_plus_plus(torch.tensor([1.0, 0.0]), mask, torch.tensor([0, 0]))
    assert torch.equal(advantages != 0, mask > 0)


def test_token_weighting_lets_long_answers_pull_the_mean_and_sequence_weighting_does_not():
    rewards, groups = torch.tensor([1.0, -1.0]), torch.tensor([0, 0])
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    by_token = trr_plus_plus(rewards, mask, groups)
    by_sequence = trr_plus_plus(rewards, mask, groups, weighting="sequence")
    assert by_token[0, 0] < -by_token[1, 0]
    torch.testing.assert_close(by_sequence[0, 0], -by_sequence[1, 0])


def test_recorded_case():
    """Worked by hand: mean (1*2 + 0*1)/3 = 2/3, variance (2/9 + 4/9)/2 = 1/3."""
    advantages = trr_plus_plus(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 1], [1, 0]]), torch.tensor([0, 0]))
    torch.testing.assert_close(advantages, torch.tensor([[3**0.5 / 3, 3**0.5 / 3], [-2 * 3**0.5 / 3, 0]]), atol=1e-6, rtol=0)


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="token"):
        trr_plus_plus(torch.ones(2), torch.ones(2, 2), torch.zeros(2), weighting="row")
