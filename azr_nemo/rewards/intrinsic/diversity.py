"""How surprising a task's values are, given the values of the tasks that are known: against a buffer full of the same answer.

    flat           1 - P(value)
    hierarchical   ((1 - P(type)) + (1 - P(value | type))) / 2        type: the Python type of the literal

The published code finds the type by evaluating the model's text in the trainer; here it is read as a literal, and what is none (an argument may be
an expression) is a type of its own.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from azr_nemo.rewards.intrinsic.component import History
from azr_nemo.tasks.parsing import NotLiteral, read_literal
from azr_nemo.tasks.task import Task, TaskType


def answer_diversity(hierarchical: bool) -> Callable[[Task, Sequence[Task], History], float]:
    """Of what the solver has to find: a deduction's output, an abduction's input. For these two types."""

    def reward(task: Task, references: Sequence[Task], history: History) -> float:
        deduction = task.type is TaskType.DEDUCTION
        known = history.outputs(task.type) if deduction else history.inputs(task.type)
        return surprise([task.output if deduction else task.input], known, hierarchical)

    return reward


def input_diversity(hierarchical: bool) -> Callable[[Task, Sequence[Task], History], float]:
    """The mean over an induction task's inputs."""
    return lambda task, references, history: surprise(task.inputs, history.inputs(task.type), hierarchical)


def output_diversity(hierarchical: bool) -> Callable[[Task, Sequence[Task], History], float]:
    """The mean over an induction task's outputs."""
    return lambda task, references, history: surprise(task.outputs, history.outputs(task.type), hierarchical)


def surprise(values: Sequence[str], known: Counter[str], hierarchical: bool) -> float:
    """Mean surprise of the values, within [0, 1]; 1 while nothing is known."""
    if not known:
        return 1.0
    if not hierarchical:
        return sum(1 - known[value] / known.total() for value in values) / len(values)
    types = _types(known)
    total = 0.0
    for value in values:
        kind = _type(value)
        share = known[value] / types[kind] if types[kind] else 0.0
        total += ((1 - types[kind] / known.total()) + (1 - share)) / 2
    return total / len(values)


def _types(known: Counter[str]) -> Counter[str]:
    types: Counter[str] = Counter()
    for value, count in known.items():
        types[_type(value)] += count
    return types


def _type(text: str) -> str:
    try:
        return type(read_literal(text)).__name__
    except NotLiteral:
        return "expression"
