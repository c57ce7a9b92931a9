"""Colours of pictures of a run. Okabe and Ito's palette: told apart by colour-blind readers too."""

from collections.abc import Sequence

from azr_nemo.tasks.task import TaskType

RUNS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#888888",
)  # a run each, where several are overlaid, else a task type each
PHASES = {
    "warm_start": "#999999", "seed": "#BBBBBB", "propose": "#0072B2", "estimate": "#56B4E9", "solve": "#009E73", "execute": "#F0E442",
    "sample": "#117733", "update": "#D55E00", "refit": "#882255", "evaluate": "#E69F00", "save": "#CC79A7", "other": "#666666",
}  # fmt: skip


def colours() -> dict[TaskType, str]:
    """A colour for each task type."""
    return {kind: RUNS[place % len(RUNS)] for place, kind in enumerate(TaskType)}


RAW_STEPS = 40  # beyond this many, single steps are drawn faintly behind a running mean


def window(steps: int) -> int:
    """Over how many steps a run of this length is averaged."""
    return max(3, steps // 20)


def running_mean(values: Sequence[float | None], size: int) -> list[float | None]:
    """The mean of the latest `size` values up to each one: a point never knows of later steps."""
    return [None if values[end - 1] is None else mean(values[max(0, end - size) : end]) for end in range(1, len(values) + 1)]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there, None when none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
