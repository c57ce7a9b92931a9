"""Held-out accuracy as a run measured it: what tells a fall from noise."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ACCURACY, REWARD = "eval/", "solve/"


@dataclass(frozen=True)
class Reading:
    """One evaluation. accuracy: mean over what was evaluated, with the mean of the intervals' ends; reward: mean solver reward of the step,
    -inf where there was none."""

    step: int
    accuracy: float
    low: float
    high: float
    reward: float


def reading(step: int, metrics: Mapping[str, Any]) -> Reading | None:
    """The evaluation in a step's metrics, or None. A value that is no number (null in metrics.jsonl: it was not finite) is left out."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    names = [name for name in numbers if name.startswith(ACCURACY) and f"{name}_low" in numbers and f"{name}_high" in numbers]
    if not names:
        return None
    rewards = [value for name, value in numbers.items() if name.startswith(REWARD) and name.endswith("/reward")]
    accuracy, low, high = (sum(numbers[name + end] for name in names) / len(names) for end in ("", "_low", "_high"))
    return Reading(step, accuracy, low, high, sum(rewards) / len(rewards) if rewards else -math.inf)


def best(readings: Iterable[Reading]) -> Reading:
    """The one of the highest accuracy, the first of equals."""
    return max(readings, key=lambda reading: reading.accuracy)


def fell(before: Reading, now: Reading) -> bool:
    """Whether accuracy fell for certain: neither reading's interval reaches the other's accuracy, so noise on few items is no fall."""
    return now.accuracy < before.low and before.accuracy > now.high
