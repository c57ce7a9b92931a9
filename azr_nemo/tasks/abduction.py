"""Abduction: given a program and an output, find an input that gives it."""

from collections.abc import Sequence

from azr_nemo.tasks.parsing import same_literal
from azr_nemo.tasks.program import canonical_input, parse_arguments
from azr_nemo.tasks.task import Calls, Refusal, Result, Task, TaskType, Verdict
from azr_nemo.tasks.triplet import Triplet
from azr_nemo.tasks.values import value_arguments


class Abduction(Triplet):
    """Judged by one honest call: the answer is the arguments of exactly one call of `f`, values that are written out, which runs in the jail. The
    stored output stays outside; what comes back is compared as a literal. Any input that gives the output is right."""

    type = TaskType.ABDUCTION
    shown, asked = "output", "input"

    def known_answer(self, task: Task) -> str:
        return task.input

    def verification(self, task: Task, answer: str, allowed_imports: Sequence[str] = ()) -> Calls | Verdict:
        """The task's own input may say what a seed's may, which is more: `f(3) + f(33)` is one, and a task has a right answer."""
        read = value_arguments(answer, task.program)
        if isinstance(read, Refusal) and canonical_input(answer) == canonical_input(task.input):
            read = parse_arguments(answer)
        return Verdict(0.0, read.reason) if isinstance(read, Refusal) else Calls(task.program, (answer,))

    def score(self, task: Task, results: list[Result], partial: bool = False) -> Verdict:
        (result,) = results
        if not result.ok or result.value is None:
            return Verdict(0.0, result.status)
        return Verdict(1.0, "right") if same_literal(result.value, task.output) else Verdict(0.0, "wrong_value")


ABDUCTION = Abduction()
