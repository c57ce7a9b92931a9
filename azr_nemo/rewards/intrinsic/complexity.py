"""How involved a program's control flow is: cognitive complexity, by complexipy, as in the published code."""

from collections.abc import Sequence

from azr_nemo.rewards.intrinsic.component import History
from azr_nemo.tasks.task import Task

SCALE = 15  # a complexity that linters commonly refuse


def complexity(task: Task, references: Sequence[Task], history: History) -> float:
    """Cognitive complexity / 15: 0 for straight code, unbounded above. 0 as well for a program nested too deeply to be measured."""
    from complexipy import code_complexity

    try:
        return code_complexity(task.program).complexity / SCALE
    except ValueError:
        return 0.0
