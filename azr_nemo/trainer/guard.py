"""Watches held-out accuracy and says when a run had better stop."""

from collections.abc import Iterable, Mapping
from typing import Any

from azr_nemo.observe.readings import Reading, best, fell, reading


class Guard:
    """Takes the metrics of evaluated steps in order. stop_if_worse: how far below its best accuracy may fall, 0 for no limit."""

    def __init__(self, stop_if_worse: float = 0.0):
        self.stop_if_worse = stop_if_worse
        self.readings: list[Reading] = []

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes what a resumed run had measured before: rows of metrics.jsonl."""
        for row in rows:
            self._take(int(row["step"]), row)

    def judge(self, step: int, metrics: Mapping[str, float]) -> str:
        """Why the run should stop after this evaluation, in a sentence; empty when it should not."""
        now = self._take(step, metrics)
        if now is None or len(self.readings) < 2:
            return ""
        highest = best(self.readings[:-1])
        if not self.stop_if_worse or not fell(highest, now) or highest.accuracy - now.accuracy <= self.stop_if_worse:
            return ""
        return (
            f"held-out accuracy fell from {highest.accuracy:.2f} at step {highest.step} to {now.accuracy:.2f}, more than "
            f"eval.stop_if_worse={self.stop_if_worse:g}: stopped; the checkpoint of step {highest.step} was the best"
        )

    def _take(self, step: int, metrics: Mapping[str, Any]) -> Reading | None:
        now = reading(step, metrics)
        if now is not None:
            self.readings.append(now)
        return now
