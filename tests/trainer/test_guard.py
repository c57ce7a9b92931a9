"""The guard tells a fall from noise, and stops only when it was told to."""

from azr_nemo.evaluation.statistics import wilson
from azr_nemo.trainer.reporting import Guard


def metrics(right: int, items: int) -> dict[str, float]:
    low, high = wilson(right, items)
    return {"eval/math500": right / items, "eval/math500_low": low, "eval/math500_high": high}


def test_a_fall_beyond_the_intervals_stops_a_run_that_asked_for_it_and_names_the_best_step():
    guard = Guard(stop_if_worse=0.1)
    assert guard.stop_reason(10, metrics(50, 100)) == ""
    assert guard.stop_reason(20, metrics(80, 100)) == ""
    why = guard.stop_reason(30, metrics(40, 100))
    assert "fell from 0.80 at step 20 to 0.40, more than eval.stop_if_worse=0.1" in why


def test_noise_on_few_items_and_a_small_fall_stop_nothing():
    guard = Guard(stop_if_worse=0.05)
    guard.stop_reason(10, metrics(6, 10))
    assert guard.stop_reason(20, metrics(4, 10)) == ""
    guard = Guard(stop_if_worse=0.5)
    guard.stop_reason(10, metrics(800, 1000))
    assert guard.stop_reason(20, metrics(600, 1000)) == ""


def test_a_run_that_did_not_ask_is_never_stopped():
    guard = Guard()
    guard.stop_reason(10, metrics(900, 1000))
    assert guard.stop_reason(20, metrics(0, 1000)) == ""


def test_steps_without_an_evaluation_say_nothing_and_a_resumed_guard_knows_what_was():
    guard = Guard(stop_if_worse=0.1)
    guard.recall([{"step": 10, **metrics(80, 100), "train/loss": None}, {"step": 11, "train/loss": 1.0}])
    assert guard.stop_reason(12, {}) == ""
    assert guard.stop_reason(20, metrics(40, 100))
