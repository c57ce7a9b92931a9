"""Tasks and replies that the tests of all environments share: each with the reply's text and the row that `azr-nemo grade` reads."""

from typing import Any

from azr_nemo.environments.referee import Reply
from azr_nemo.tasks.task import Task, TaskType

PROGRAM = "def f(x):\n    return x * 2 + 1"
DEDUCTION = Task(TaskType.DEDUCTION, PROGRAM, ("3",), ("7",))
ABDUCTION = Task(TaskType.ABDUCTION, PROGRAM, ("3",), ("7",))
INDUCTION = Task(TaskType.INDUCTION, PROGRAM, ("1", "2", "3", "4"), ("3", "5", "7", "9"), "twice and one more")

# task, reply, the answer that stands in it (None where there is none to read), the reward of the defaults
CASES: list[tuple[Task, Reply, str | None, float]] = [
    (DEDUCTION, Reply("3 twice is 6\nRESULT: 7"), "7", 1.0),
    (DEDUCTION, Reply("RESULT: 8"), "8", -0.5),
    (DEDUCTION, Reply("RESULT: __import__('os').getcwd()"), "__import__('os').getcwd()", -0.5),
    (DEDUCTION, Reply("seven"), None, -1.0),
    (DEDUCTION, Reply("RESULT: 7", finished=False), None, -1.0),
    (ABDUCTION, Reply("RESULT: f(3)"), "3", 1.0),
    (ABDUCTION, Reply("RESULT: f(3.0)"), "3.0", 1.0),
    (ABDUCTION, Reply("RESULT: f(4)"), "4", -0.5),
    (ABDUCTION, Reply("RESULT: f('a')"), "'a'", -0.5),
    (INDUCTION, Reply("```python\ndef f(x):\n    return x + x + 1\n```"), "def f(x):\n    return x + x + 1", 1.0),
    (INDUCTION, Reply("```python\ndef f(x):\n    return {1: 3, 2: 5}[x]\n```"), "def f(x):\n    return {1: 3, 2: 5}[x]", -0.5),
    (INDUCTION, Reply("```python\nimport os\ndef f(x):\n    return 3\n```"), "import os\ndef f(x):\n    return 3", -0.5),
]

PROPOSAL = "```python\ndef f(x, y):\n    return x * y - x\n\nf(3, 4)\n```"


def row(task: Task, answer: str) -> dict[str, Any]:
    """What `azr-nemo grade` reads."""
    return {"task_type": task.type.value, "program": task.program, "inputs": task.inputs, "outputs": task.outputs, "answer": answer}
