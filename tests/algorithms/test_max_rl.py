"""MaxRL, W-REINFORCE and RAFT are what their papers write, and leave proposals alone."""

import pytest
import torch

from azr_nemo.algorithms.grpo import grpo
from azr_nemo.algorithms.max_rl import max_rl
from azr_nemo.algorithms.raft import lighter_failures
from azr_nemo.algorithms.w_reinforce import lighter_successes


def compared(rewards: list[float], prompts: list[int], proposers: list[bool]) -> torch.Tensor:
    mask = torch.ones(len(rewards), 2)
    groups = torch.tensor([0 if proposer else 1 for proposer in proposers])
    return max_rl(torch.tensor(rewards), mask, torch.tensor(prompts), groups, torch.tensor(proposers))


@pytest.mark.parametrize(("right", "of"), [(1, 8), (4, 8), (7, 8)])
def test_a_right_answer_weighs_as_much_as_it_is_rare_and_a_wrong_one_minus_one(right, of):
    found = compared([1.0] * right + [-0.5] * (of - right), [7] * of, [False] * of)[:, 0]
    assert found[:right].tolist() == pytest.approx([of / right - 1] * right)
    assert found[right:].tolist() == pytest.approx([-1.0] * (of - right))


def test_where_all_or_none_are_right_nothing_is_learnt():
    for rewards in ([1.0, 1.0], [-0.5, -0.5], [-0.5, -1.0]):  # how badly an answer is wrong makes no difference
        assert not compared(rewards, [1, 1], [False, False]).any()


def test_tasks_do_not_see_each_other_and_proposals_are_compared_by_their_type():
    rewards, prompts = [1.0, -0.5, 1.0, -1.0, 0.5, 0.75], [1, 1, 2, 2, 3, 4]
    proposers = [False] * 4 + [True] * 2
    found = compared(rewards, prompts, proposers)
    assert found[:4, 0].tolist() == [1.0, -1.0, 1.0, -1.0]
    assert torch.equal(found[4:], grpo(torch.tensor(rewards[4:]), torch.ones(2, 2), torch.zeros(2)))


def test_a_reward_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        compared([1.0, float("nan")], [1, 1], [False, False])


def test_only_right_answers_to_tasks_that_are_mostly_solved_are_made_lighter():
    advantages = torch.tensor([1.0, 1.0, -2.0, 3.0, -1.0, -1.0, 1.0, 1.0])
    prompts = torch.tensor([1, 1, 1, 2, 2, 2, 3, 3])  # two of three right; one of three; proposals
    proposers = torch.tensor([False] * 6 + [True] * 2)
    found = lighter_successes(advantages, prompts, proposers, 0.5)
    assert found.tolist() == [0.5, 0.5, -2.0, 3.0, -1.0, -1.0, 1.0, 1.0]
    assert torch.equal(lighter_successes(advantages, prompts, proposers, 1.0), advantages)


def test_failures_are_made_lighter_or_silent_and_neither_successes_nor_proposals():
    advantages, proposers = torch.tensor([1.0, -2.0, 0.0, -1.0]), torch.tensor([False, False, False, True])
    assert lighter_failures(advantages, proposers, 0.25).tolist() == [1.0, -0.5, 0.0, -1.0]
    assert lighter_failures(advantages, proposers, 0.0).tolist() == [1.0, 0.0, 0.0, -1.0]
    assert torch.equal(lighter_failures(advantages, proposers, 1.0), advantages)
