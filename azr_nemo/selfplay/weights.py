"""How likely a task of the buffer is drawn: one small function for each strategy of `selfplay.reference_sampling` that weighs."""

from collections.abc import Callable
from typing import NamedTuple


class Candidate(NamedTuple):
    """What is known of a task that may be drawn. step: when it was created, 0 for seeds. lines: of its body. attempts, solved: of solvers."""

    id: int
    step: int
    lines: int
    attempts: int
    solved: int


def recent(task: Candidate) -> float:
    """The newer, the likelier: creation step + 1 (the published code's `step`, whose weights are all 0 while everything is a seed)."""
    return max(task.step, 0) + 1


def long(task: Candidate) -> float:
    """The longer, the likelier: lines of the body. Against proposers that drift to one-liners."""
    return task.lines


def hard(task: Candidate) -> float:
    """The seldomer solved, the likelier: 1 - p."""
    return 1 - _solve_rate(task)


def learnable(task: Candidate) -> float:
    """The closer to being solved half the time, the likelier: 4p(1 - p)."""
    rate = _solve_rate(task)
    return 4 * rate * (1 - rate)


def _solve_rate(task: Candidate) -> float:
    """Laplace's estimate, within (0, 1): one half for a task that nobody tried, so that no weight is ever 0."""
    return (task.solved + 1) / (task.attempts + 2)


WEIGHTS: dict[str, Callable[[Candidate], float]] = {"recent": recent, "long": long, "hard": hard, "learnable": learnable}
