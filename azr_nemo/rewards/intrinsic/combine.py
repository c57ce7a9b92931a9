"""The proposer's reward from learnability and the intrinsic rewards that are switched on, combined in one of the published code's four ways."""

import math
from collections.abc import Sequence

from azr_nemo.errors import UserError
from azr_nemo.rewards.intrinsic.component import Component, History
from azr_nemo.tasks.task import Task

COMBINE = ("sum", "multiply", "sum_multiply", "multiply_sum")


def values(components: Sequence[Component], task: Task, references: Sequence[Task], history: History) -> dict[str, float]:
    """min(coef * value, max) of each component that is for tasks of this type, by name. Raises UserError when one fails or gives no number."""
    return {part.name: _value(part, task, references, history) for part in components if not part.types or task.type in part.types}


def combine(learnability: float, parts: Sequence[float], how: str) -> float:
    """sum: r + Σc. multiply: r * Πc. sum_multiply: r + Πc. multiply_sum: r * Σc. Without parts: r."""
    if not parts:
        return learnability
    both = sum(parts) if how in ("sum", "multiply_sum") else math.prod(parts)
    return learnability + both if how in ("sum", "sum_multiply") else learnability * both


def _value(part: Component, task: Task, references: Sequence[Task], history: History) -> float:
    try:
        value = float(part.reward(task, references, history))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"reward.intrinsic.{part.name} failed on the task {task.program[:80]!r}: {type(error).__name__}: {error}"
        ) from error
    if not math.isfinite(value):
        raise UserError(f"reward.intrinsic.{part.name} gave {value} for the task {task.program[:80]!r}: it must give a finite number")
    return min(part.coef * value, part.largest)
