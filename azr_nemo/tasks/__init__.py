"""The task types: three of Absolute Zero, and whatever is added to KINDS."""

from azr_nemo.tasks.abduction import ABDUCTION
from azr_nemo.tasks.deduction import DEDUCTION
from azr_nemo.tasks.induction import INDUCTION
from azr_nemo.tasks.task import TaskKind, TaskType
from azr_nemo.tasks.triplet import Triplet

KINDS: dict[TaskType, TaskKind] = {kind.type: kind for kind in (DEDUCTION, ABDUCTION, INDUCTION)}


def triplets() -> tuple[TaskType, ...]:
    """The types whose tasks are one program with one input and one output."""
    return tuple(type for type, kind in KINDS.items() if isinstance(kind, Triplet))


__all__ = ["KINDS", "triplets"]
