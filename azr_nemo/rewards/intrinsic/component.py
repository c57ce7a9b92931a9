"""What an intrinsic reward is: a function of a task, the references its proposer saw, and what the buffer held before."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from azr_nemo.tasks.task import Task, TaskType


class History(Protocol):
    """What was known when the step began."""

    def inputs(self, type: TaskType) -> Counter[str]:
        """How often each input text occurs among the tasks of this type."""
        ...

    def outputs(self, type: TaskType) -> Counter[str]:
        """How often each output text (a literal) occurs among them."""
        ...

    def shapes(self, type: TaskType) -> Counter[str]:
        """How often each shape (azr_nemo.tasks.program_shape) occurs among their programs."""
        ...


Reward = Callable[[Task, Sequence[Task], History], float]


@dataclass(frozen=True)
class Component:
    """One intrinsic reward as configured: min(coef * value, largest) of the tasks of its types, of all where it names none."""

    name: str
    reward: Reward
    coef: float
    largest: float
    types: frozenset[TaskType] = frozenset()
