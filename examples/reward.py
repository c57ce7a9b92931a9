"""A reward of one's own for proposals: tasks whose input has several arguments.

PYTHONPATH=examples azr-nemo train reward.intrinsic.arguments.target=reward.many_arguments reward.intrinsic.arguments.coef=0.1 ...
"""

import ast
from collections.abc import Sequence

from azr_nemo.rewards.intrinsic.component import History
from azr_nemo.tasks.task import Task

MANY = 3


def many_arguments(task: Task, references: Sequence[Task], history: History) -> float:
    """The number of arguments of the task's input, as a share of MANY and at most 1. references: what its proposer saw. history: how often
    inputs and outputs occur in the buffer. The texts are what a model wrote: they may be parsed, never evaluated."""
    call = ast.parse(f"f({task.input})", mode="eval").body
    assert isinstance(call, ast.Call)
    return min((len(call.args) + len(call.keywords)) / MANY, 1.0)
