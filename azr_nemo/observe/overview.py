"""A dozen numbers that say how a run is doing: means over the task types, which no other metric gives."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from azr_nemo.tasks.task import TaskType

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


# overview/NAME is the mean of what the patterns name for each task type.
MEANS = {
    "valid": ("propose/{}/valid",),
    "new": ("propose/{}/new",),
    "distinct": ("propose/{}/distinct",),
    "learnable": ("propose/{}/learnable",),
    "lines": ("propose/{}/lines",),
    "propose_reward": ("propose/{}/reward",),
    "accuracy": ("solve/{}/accuracy",),
    "solve_reward": ("solve/{}/reward",),
    "format": ("propose/{}/format", "solve/{}/format"),
}


def overview(metrics: Mapping[str, float]) -> dict[str, float]:
    """`overview/NAME` of a step's metrics; a name is absent where there is nothing to average. Not-finite values make it not finite."""
    found = {name: _values(metrics, patterns) for name, patterns in MEANS.items()}
    means = {f"overview/{name}": sum(values) / len(values) for name, values in found.items() if values}
    if sizes := _values(metrics, ("buffer/{}/size",)):
        means["overview/buffer"] = sum(sizes)
    if now := reading(0, metrics):
        means["overview/held_out"] = now.accuracy
    return means


def _values(metrics: Mapping[str, float], patterns: Iterable[str]) -> list[float]:
    names = [pattern.format(kind.value) for pattern in patterns for kind in TaskType]
    return [metrics[name] for name in names if name in metrics]
