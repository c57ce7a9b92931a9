"""The guard tells a fall from noise, says when reward parts from accuracy, and stops only when it was told to."""

from azr_nemo.evaluation.statistics import wilson
from azr_nemo.trainer.guard import Guard


def metrics(right: int, items: int, reward: float | None = None) -> dict[str, float]:
    low, high = wilson(right, items)
    found = {"eval/math500": right / items, "eval/math500_low": low, "eval/math500_high": high}
    return found if reward is None else {**found, "solve/deduction/reward": reward, "solve/abduction/reward": reward}


def test_a_fall_beyond_the_intervals_stops_a_run_that_asked_for_it_and_names_the_best_step():
    guard = Guard(stop_if_worse=0.1)
    assert guard.judge(10, metrics(50, 100, 0.1)) == ([], False)
    assert guard.judge(20, metrics(80, 100, 0.2)) == ([], False)
    warnings, stop = guard.judge(30, metrics(40, 100, 0.1))
    assert stop
    assert len(warnings) == 1
    assert "fell from 0.80 at step 20 to 0.40, more than eval.stop_if_worse=0.1" in warnings[0]


def test_noise_on_few_items_and_a_small_fall_stop_nothing():
    guard = Guard(stop_if_worse=0.05)
    guard.judge(10, metrics(6, 10, 0.1))
    assert guard.judge(20, metrics(4, 10, 0.1)) == ([], False)
    guard = Guard(stop_if_worse=0.5)
    guard.judge(10, metrics(800, 1000, 0.1))
    assert guard.judge(20, metrics(600, 1000, 0.1))[1] is False


def test_reward_that_rises_while_accuracy_falls_is_a_warning_and_no_reason_to_stop():
    guard = Guard()
    guard.judge(0, metrics(80, 100))  # before the first step there is no reward
    guard.judge(10, metrics(82, 100, 0.2))
    warnings, stop = guard.judge(20, metrics(40, 100, 0.6))
    assert not stop
    assert len(warnings) == 1
    assert "reward rose from 0.20 to 0.60: look for reward hacking" in warnings[0]
    assert guard.judge(30, metrics(40, 100, 0.1)) == ([], False)


def test_steps_without_an_evaluation_say_nothing_and_a_resumed_guard_knows_what_was():
    guard = Guard(stop_if_worse=0.1)
    guard.recall([{"step": 10, **metrics(80, 100, 0.1), "train/loss": None}, {"step": 11, "train/loss": 1.0}])
    assert guard.judge(12, {}) == ([], False)
    assert guard.judge(20, metrics(40, 100, 0.1))[1] is True
