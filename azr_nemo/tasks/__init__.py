"""The three task types of Absolute Zero."""

from azr_nemo.tasks.abduction import ABDUCTION
from azr_nemo.tasks.deduction import DEDUCTION
from azr_nemo.tasks.induction import INDUCTION
from azr_nemo.tasks.task import TaskKind, TaskType

KINDS: dict[TaskType, TaskKind] = {kind.type: kind for kind in (DEDUCTION, ABDUCTION, INDUCTION)}

__all__ = ["KINDS"]
