"""Alarms go up for what they name, stay down for noise and progress, and a resumed run raises the same."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.statistics import wilson
from azr_nemo.observe.alarms import ALARMS, Alarms
from azr_nemo.settings.schema import AlarmsConfig

SHARES = {"diversity": "overview/distinct", "format": "overview/format", "duplicates": "overview/new", "echoes": "solve/abduction/echo"}
FALLS = {"diversity": "overview/distinct", "format": "overview/format", "entropy": "train/entropy"}
SETTING = {
    "diversity": "diversity_fall",
    "format": "format_fall",
    "entropy": "entropy_fall",
    "duplicates": "duplicates",
    "echoes": "echoes",
    "rollout_kl": "rollout_kl",
}
shares = st.floats(0.0, 1.0)


def rows(name, values, first=1):
    return [{"step": first + place, name: value} for place, value in enumerate(values)]


def judged(history, config=None):
    """What each step of the history raised: the names, by step."""
    alarms = Alarms(config or AlarmsConfig(window=3))
    said = [alarms.check(row["step"], {name: value for name, value in row.items() if name != "step"}) for row in history]
    return [
        sorted(name.removeprefix("alarm/") for name, value in found.items() if value and name.startswith("alarm/")) for found, _ in said
    ], [sentences for _, sentences in said]


def evaluated(step, right, items, reward=None):
    low, high = wilson(right, items)
    found = {"step": step, "eval/math500": right / items, "eval/math500_low": low, "eval/math500_high": high}
    return found if reward is None else {**found, "solve/deduction/reward": reward, "solve/abduction/reward": reward}


@given(st.lists(shares, min_size=1, max_size=30).map(sorted), st.integers(1, 6), st.floats(0.05, 0.95), st.sampled_from(sorted(FALLS)))
def test_what_never_falls_raises_nothing(values, window, allowed, alarm):
    config = AlarmsConfig(window=window, **{SETTING[alarm]: allowed})
    up, said = judged(rows(FALLS[alarm], values), config)
    assert not any(up)
    assert not any(said)


@given(shares.filter(lambda value: value > 0.01), st.integers(1, 5), st.sampled_from(sorted(FALLS)))
def test_a_fall_to_nothing_raises_its_alarm_and_no_other(high, window, alarm):
    config = AlarmsConfig(window=window)
    up, said = judged(rows(FALLS[alarm], [high] * window + [0.0] * window), config)
    assert up[-1] == [alarm]
    assert [sentence.split(":")[0] for sentences in said for sentence in sentences] == [f"alarm/{alarm}"]


@given(st.lists(shares, min_size=1, max_size=25), st.integers(1, 5), st.integers(0, 25), st.sampled_from(sorted(SETTING)))
def test_a_resumed_run_raises_the_same_alarms(values, window, cut, alarm):
    config = AlarmsConfig(window=window)
    history = rows({**FALLS, **SHARES, "rollout_kl": "train/rollout_kl_k3"}[alarm], values)
    whole, said = judged(history, config)
    resumed = Alarms(config, history[:cut])
    for place, row in enumerate(history[cut:], start=cut):
        found, sentences = resumed.check(row["step"], row)
        assert sorted(name for name in ALARMS if found[f"alarm/{name}"]) == whole[place]
        assert sentences == said[place]


@given(st.lists(st.one_of(shares, st.none(), st.just(math.nan)), max_size=20))
def test_a_threshold_of_zero_turns_an_alarm_off(values):
    off = AlarmsConfig(window=2, **dict.fromkeys(SETTING.values(), 0.0))
    for name in (*FALLS.values(), *SHARES.values(), "train/rollout_kl_k3"):
        assert not any(judged(rows(name, values), off)[0])


def test_the_latest_windows_overlap_is_not_compared_with_itself():
    up, _ = judged(rows("overview/distinct", [1.0, 1.0, 1.0, 0.0, 0.0]))
    assert not any(up)  # five steps do not hold two windows of three
    up, _ = judged(rows("overview/distinct", [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    assert up[-1] == ["diversity"]


def test_duplicates_are_judged_by_a_whole_window():
    up, said = judged(rows("overview/new", [0.0, 0.2, 0.9, 0.2, 0.2]))
    assert up == [[], [], ["duplicates"], ["duplicates"], ["duplicates"]]
    assert said[2] == ["alarm/duplicates: 63% of the valid proposals of 3 steps were in the buffer already"]


def test_answers_that_repeat_the_output_are_told_of_once_they_are_most():
    up, said = judged(rows("solve/abduction/echo", [0.2, 0.9, 0.3, 0.6, 0.9, 0.1, 0.1]))
    assert up == [[], [], [], ["echoes"], ["echoes"], ["echoes"], []]
    assert said[3][0].startswith("alarm/echoes: 60% of the answers to abduction tasks in 3 steps repeat the output")


def test_rollout_and_trainer_that_disagree_are_told_at_once():
    up, said = judged(rows("train/rollout_kl_k3", [0.5, 0.0]))
    assert up[0] == ["rollout_kl"]
    assert "0.5 nats" in said[0][0]


def test_an_alarm_speaks_when_it_goes_up_and_again_when_it_comes_back():
    values = [1.0] * 3 + [0.0] * 4 + [1.0] * 3 + [0.0] * 3
    up, said = judged(rows("overview/format", values))
    assert [place for place, sentences in enumerate(said) if sentences] == [5, 10]
    assert up[6] == ["format"]
    assert up[9] == []


def test_reward_that_rises_while_accuracy_falls_is_reward_hacking_until_an_evaluation_finds_otherwise():
    history = [
        evaluated(0, 80, 100),  # before the first step there is no reward
        evaluated(10, 82, 100, 0.2),
        {"step": 11, "train/loss": 1.0},
        evaluated(20, 40, 100, 0.6),
        {"step": 21, "train/loss": None},
        evaluated(30, 40, 100, 0.1),
    ]
    up, said = judged(history)
    assert up == [[], [], [], ["reward_hacking"], ["reward_hacking"], []]
    assert said[3] == [
        "alarm/reward_hacking: held-out accuracy fell from 0.82 at step 10 to 0.40 while the solver's reward rose from 0.20 to 0.60: "
        "look for reward hacking"
    ]
    assert not said[4]


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1))
def test_a_fall_within_the_intervals_is_no_reward_hacking(first, second, reward):
    high = wilson(second, 50)[1]
    up, _ = judged([evaluated(1, first, 50, 0.0), evaluated(2, second, 50, reward)])
    assert (["reward_hacking"] in up) == (reward > 0 and second < first and second / 50 < wilson(first, 50)[0] and first / 50 > high)


def test_every_alarm_is_a_metric_and_their_number_is_on_the_overview():
    found, _ = Alarms(AlarmsConfig()).check(1, {"train/rollout_kl_k3": 9.0})
    assert found.pop("overview/alarms") == 1.0
    assert found == {f"alarm/{name}": float(name == "rollout_kl") for name in ALARMS}


@pytest.mark.parametrize("alarm", sorted(ALARMS))
def test_nothing_measured_raises_nothing(alarm):
    assert ALARMS[alarm]([], AlarmsConfig()) == ""
    assert ALARMS[alarm]([{"step": 0}], AlarmsConfig()) == ""
