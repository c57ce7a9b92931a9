"""Rewards are those of the paper's equations at their defaults, and the configured ones otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.rewards.answer import solver_reward
from azr_nemo.rewards.learnability import learnability
from azr_nemo.settings.schema import RewardConfig
from azr_nemo.tasks.prompting import think_answer
from azr_nemo.tasks.task import Verdict


@pytest.mark.parametrize(
    ("verdict", "reward"),
    [
        (Verdict(1.0, "right"), 1.0),
        (Verdict(0.5, "wrong_value"), 0.5),
        (Verdict(0.0, "wrong_value"), -0.5),
        (Verdict(0.0, "timeout"), -0.5),
        (Verdict(0.0, "not_one_call"), -0.5),
        (Verdict(0.0, "format"), -1.0),
        (Verdict(0.0, "truncated"), -1.0),
    ],
)
def test_right_wrong_and_unreadable_answers_earn_different_rewards(verdict, reward):
    assert solver_reward(verdict, RewardConfig()) == reward


def test_the_configured_rewards_are_paid():
    config = RewardConfig(right=2.0, wrong=0.0, malformed=-3.0, unlearnable=0.25)
    paid = [solver_reward(verdict, config) for verdict in (Verdict(1.0, "right"), Verdict(0.0, "error"), Verdict(0.0, "format"))]
    assert paid == [2.0, 0.0, -3.0]
    assert learnability(0.0, config) == learnability(1.0, config) == 0.25


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_learnable_task_earns_between_zero_and_one(rate):
    assert learnability(rate, RewardConfig()) == 1 - rate
    assert 0 < learnability(rate, RewardConfig(learnability="four_p_one_minus_p")) <= 1


def test_the_symmetric_form_is_highest_at_one_half():
    assert learnability(0.5, RewardConfig(learnability="four_p_one_minus_p")) == 1
    assert learnability(0.25, RewardConfig(learnability="four_p_one_minus_p")) == 0.75


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_task_that_all_or_none_solve_is_unlearnable(rate):
    assert learnability(rate, RewardConfig()) == -0.5


@pytest.mark.parametrize("rate", [-0.01, 1.01, float("nan")])
def test_what_is_no_rate_is_an_error(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        learnability(rate, RewardConfig())


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>a</think><answer>b</answer>", "b"),
        ("\n<think>a\n</think>\n <answer>\nb\n</answer> more", "\nb\n"),
        ("<think></think><answer></answer>", ""),
        ("<think>a</think><answer>b</answer><answer>c</answer>", "b"),
        ("<answer>b</answer>", None),
        ("well <think>a</think><answer>b</answer>", None),
        ("<think>a<answer>b</answer>", None),
        ("<think>a</think><answer>b", None),
        ("<think>a</think> so <answer>b</answer>", None),
        ("", None),
    ],
)
def test_only_thoughts_then_an_answer_are_of_the_format(response, answer):
    assert think_answer(response) == answer
