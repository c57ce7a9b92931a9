"""Means over neighbouring steps, for pictures of long runs. None stands for a value that is missing and stays missing."""

from collections.abc import Sequence

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
