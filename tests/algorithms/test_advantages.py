"""Each estimator equals its paper's formula, is silent without signal, and never mixes what it should compare apart."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.algorithms.dr_grpo import dr_grpo
from azr_nemo.algorithms.grpo import grpo
from azr_nemo.algorithms.hierarchical_grpo import hierarchical_grpo
from azr_nemo.algorithms.reinforce_plus_plus import reinforce_plus_plus
from azr_nemo.algorithms.rloo import rloo
from azr_nemo.algorithms.role_baseline import role_baseline
from azr_nemo.algorithms.trr_plus_plus import trr_plus_plus

BY_PROMPT = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}
REWARDS = st.sampled_from([-1.0, -0.5, 0.0, 0.125, 0.5, 0.875, 1.0])

batches = st.integers(1, 30).flatmap(
    lambda rows: st.tuples(
        st.lists(REWARDS, min_size=rows, max_size=rows),
        st.lists(st.integers(1, 9), min_size=rows, max_size=rows),
        st.lists(st.integers(0, 4), min_size=rows, max_size=rows),
    )
)


def tensors(batch):
    rewards, lengths, ids = batch
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).double()
    return torch.tensor(rewards, dtype=torch.float64), mask, torch.tensor(ids)


def verl_grpo(rewards: list[float], ids: list[int]) -> list[float]:
    """Row by row, as verl writes it: dictionaries of scores, torch.std (unbiased), epsilon 1e-6; groups of two and more."""
    by_id: dict[int, list[float]] = {}
    for reward, key in zip(rewards, ids, strict=True):
        by_id.setdefault(key, []).append(reward)
    return [
        (reward - sum(by_id[key]) / len(by_id[key])) / (float(torch.std(torch.tensor(by_id[key], dtype=torch.float64))) + 1e-6)
        for reward, key in zip(rewards, ids, strict=True)
    ]


@given(batches)
@settings(max_examples=60)
def test_grpo_is_verls(batch):
    rewards, mask, ids = tensors(batch)
    sizes = torch.stack([(ids == key).sum() for key in ids])
    expected = torch.tensor([value if size > 1 else 0.0 for value, size in zip(verl_grpo(*batch[::2]), sizes, strict=True)])
    torch.testing.assert_close(
        grpo(rewards, mask, ids)[:, 0], expected.double() if sizes.max() > 1 else torch.zeros_like(rewards), atol=1e-5, rtol=0
    )


@given(batches)
@settings(max_examples=60)
def test_rloo_is_dr_grpo_stretched_by_n_over_n_minus_one(batch):
    rewards, mask, ids = tensors(batch)
    sizes = torch.stack([(ids == key).sum() for key in ids]).double()
    stretched = dr_grpo(rewards, mask, ids)[:, 0] * sizes / (sizes - 1).clamp(min=1)
    torch.testing.assert_close(rloo(rewards, mask, ids)[:, 0], stretched, atol=1e-9, rtol=0)


@given(batches, st.sampled_from(sorted(BY_PROMPT)))
@settings(max_examples=60)
def test_prompts_do_not_see_each_other_and_sum_to_zero(batch, name):
    rewards, mask, ids = tensors(batch)
    together = BY_PROMPT[name](rewards, mask, ids)
    for key in ids.unique():
        rows = ids == key
        alone = BY_PROMPT[name](rewards[rows], mask[rows], ids[rows])
        assert torch.equal(together[rows], alone)
        assert abs(float(alone[:, 0].sum())) < 1e-6
        if rewards[rows].unique().numel() == 1:
            assert not alone.any()


@given(batches, st.sampled_from(sorted(BY_PROMPT)), st.floats(-3, 3))
@settings(max_examples=40)
def test_a_constant_added_to_all_rewards_changes_nothing(batch, name, constant):
    rewards, mask, ids = tensors(batch)
    moved = BY_PROMPT[name](rewards + constant, mask, ids)
    torch.testing.assert_close(moved, BY_PROMPT[name](rewards, mask, ids), atol=1e-6, rtol=1e-6)


@given(batches)
@settings(max_examples=40)
def test_reinforce_plus_plus_is_trr_plus_plus_with_one_group(batch):
    rewards, mask, _ = tensors(batch)
    for weighting in ("token", "sequence"):
        one = trr_plus_plus(rewards, mask, torch.zeros(len(rewards), dtype=torch.long), weighting)
        assert torch.equal(reinforce_plus_plus(rewards, mask, weighting), one)


@given(batches)
@settings(max_examples=40)
def test_hierarchical_grpo_compares_answers_by_task_and_proposals_by_type(batch):
    rewards, mask, ids = tensors(batch)
    proposers = torch.arange(len(rewards)) % 2 == 0
    groups = torch.where(proposers, 0, 1)
    found = hierarchical_grpo(rewards, mask, ids, groups, proposers)
    assert torch.equal(found[~proposers], grpo(rewards[~proposers], mask[~proposers], ids[~proposers]))
    assert torch.equal(found[proposers], grpo(rewards[proposers], mask[proposers], groups[proposers]))


@given(batches, st.floats(0, 0.99))
@settings(max_examples=40)
def test_the_role_baseline_is_a_moving_average_that_goes_on_from_step_to_step(batch, decay):
    rewards, mask, groups = tensors(batch)
    half = len(rewards) // 2
    start = dict.fromkeys(range(5), 0.25)
    whole, after = role_baseline(rewards, mask, groups, start, decay)
    first, between = role_baseline(rewards[:half], mask[:half], groups[:half], start, decay)
    second, end = role_baseline(rewards[half:], mask[half:], groups[half:], between, decay)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    assert end == pytest.approx(after)
    assert start == dict.fromkeys(range(5), 0.25)  # what it was given is left alone
    reward = float(rewards[0])
    baseline = decay * 0.25 + (1 - decay) * reward
    assert float(whole[0, 0]) == pytest.approx(reward - baseline)


def test_the_first_step_of_a_role_baseline_starts_from_its_own_mean():
    _, after = role_baseline(torch.tensor([-1.0, -1.0]), torch.ones(2, 3), torch.tensor([0, 0]), {})
    assert after == {0: -1.0}


def test_a_decay_of_one_would_never_learn_and_is_refused():
    with pytest.raises(ValueError, match="decay"):
        role_baseline(torch.tensor([1.0]), torch.ones(1, 1), torch.tensor([0]), {}, decay=1.0)


@pytest.mark.parametrize("name", sorted(BY_PROMPT))
def test_advantages_are_zero_beyond_a_response(name):
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    found = BY_PROMPT[name](torch.tensor([1.0, 0.0]), mask, torch.tensor([7, 7]))
    assert found[1, 1] == 0
    assert found[0, 0] == found[0, 1] > 0
