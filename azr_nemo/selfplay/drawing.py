"""What the solver's tasks of a step are mixed of: one row for each value of `selfplay.solve_from`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Mix:
    """share: of the batch that comes from tasks of certain steps, drawn uniformly among them. oldest, newest: which steps, counted back from
    this one; None: `selfplay.solve_window` of them. The rest, and what these steps lack, is drawn from the whole buffer by `others`."""

    share: float
    newest: int = 0
    oldest: int | None = 0
    others: str = "uniform"

    @property
    def needs_this_step(self) -> bool:
        """Whether tasks that are proposed in the very step come first."""
        return self.share > 0 and self.newest == 0

    def steps(self, step: int, window: int) -> range:
        """The steps whose tasks come first, ascending. Seeds are of step 0."""
        oldest = window - 1 if self.oldest is None else self.oldest
        return range(max(step - oldest, 0), step - self.newest + 1)


MIXES = {
    "current": Mix(1.0),
    "previous": Mix(1.0, newest=1, oldest=1),  # the published max_new, which draws before anything is proposed
    "recent": Mix(1.0, oldest=None),
    "mixed": Mix(0.5),
    "previous_mixed": Mix(0.5, newest=1, oldest=1),  # its half_new
    "buffer": Mix(0.0),  # its uniform_total
    "newer": Mix(0.0, others="recent"),  # its step
    "learnable": Mix(0.0, others="learnable"),  # solved about half the time so far, or not tried yet
}


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


def retired(task: Candidate, easy: float, hard: float, after: int) -> bool:
    """Whether a task has nothing left to teach: of at least `after` answers the share `easy` was right (ScaleRL, arXiv 2510.13786, never asks a prompt
    again that was solved at 0.9), or less than the share `hard`. A bound of 0 is none."""
    if task.attempts < after:
        return False
    rate = task.solved / task.attempts
    return (easy > 0 and rate >= easy) or rate < hard


WEIGHTS: dict[str, Callable[[Candidate], float]] = {"recent": recent, "long": long, "hard": hard, "learnable": learnable}
