"""Watches held-out accuracy beside training reward: says when they part, and when a run had better stop."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ACCURACY, REWARD = "eval/", "solve/"


@dataclass(frozen=True)
class Reading:
    """One evaluation. accuracy: mean over what was evaluated, with the mean of the intervals' ends; reward: mean solver reward of the step."""

    step: int
    accuracy: float
    low: float
    high: float
    reward: float


class Guard:
    """Takes the metrics of evaluated steps in order. stop_if_worse: how far below its best accuracy may fall, 0 for no limit.

    Two readings differ when neither's interval reaches the other's accuracy, so that noise on few items stops nothing.
    """

    def __init__(self, stop_if_worse: float = 0.0):
        self.stop_if_worse = stop_if_worse
        self.readings: list[Reading] = []

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes what a resumed run had measured before: rows of metrics.jsonl."""
        for row in rows:
            self._take(int(row["step"]), row)

    def judge(self, step: int, metrics: Mapping[str, float]) -> tuple[list[str], bool]:
        """Warnings about this evaluation, and whether the run should stop."""
        now = self._take(step, metrics)
        if now is None or len(self.readings) < 2:
            return [], False
        best = max(self.readings[:-1], key=lambda reading: reading.accuracy)
        if not _fell(best, now):
            return [], False
        warnings = []
        fall = f"held-out accuracy fell from {best.accuracy:.2f} at step {best.step} to {now.accuracy:.2f}"
        if math.isfinite(best.reward) and now.reward > best.reward:
            warnings.append(f"{fall} while the solver's reward rose from {best.reward:.2f} to {now.reward:.2f}: look for reward hacking")
        stop = bool(self.stop_if_worse) and best.accuracy - now.accuracy > self.stop_if_worse
        if stop:
            warnings.append(
                f"{fall}, more than eval.stop_if_worse={self.stop_if_worse:g}: stopped; the checkpoint of step {best.step} was the best"
            )
        return warnings, stop

    def _take(self, step: int, metrics: Mapping[str, Any]) -> Reading | None:
        metrics = {name: value for name, value in metrics.items() if isinstance(value, int | float)}  # null in the file: was not finite
        names = [name for name in metrics if name.startswith(ACCURACY) and f"{name}_low" in metrics and f"{name}_high" in metrics]
        rewards = [value for name, value in metrics.items() if name.startswith(REWARD) and name.endswith("/reward")]
        if not names:
            return None
        accuracy, low, high = (sum(metrics[name + end] for name in names) / len(names) for end in ("", "_low", "_high"))
        reading = Reading(step, accuracy, low, high, sum(rewards) / len(rewards) if rewards else -math.inf)
        self.readings.append(reading)
        return reading


def _fell(before: Reading, now: Reading) -> bool:
    return now.accuracy < before.low and before.accuracy > now.high
