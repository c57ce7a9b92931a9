"""A dozen numbers that say how a run is doing: means over the task types, which no other metric gives."""

from collections.abc import Iterable, Mapping

from azr_nemo.observe.readings import reading
from azr_nemo.tasks.task import TaskType

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
