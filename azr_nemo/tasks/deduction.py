"""Deduction: given a program and an input, state the output."""

from collections.abc import Sequence

from azr_nemo.tasks.parsing import NotLiteral, read_literal, same_literal
from azr_nemo.tasks.task import Calls, Result, Task, TaskType, Verdict
from azr_nemo.tasks.triplet import Triplet


class Deduction(Triplet):
    """Judged without running anything: the answer must be a literal equal to the stored output."""

    type = TaskType.DEDUCTION
    shown, asked = "input", "output"

    def known_answer(self, task: Task) -> str:
        return task.output

    def verification(self, task: Task, answer: str, allowed_imports: Sequence[str] = ()) -> Calls | Verdict:
        try:
            read_literal(answer)
        except NotLiteral:
            return Verdict(0.0, "not_literal")
        return Verdict(1.0, "right") if same_literal(answer, task.output) else Verdict(0.0, "wrong_value")

    def score(self, task: Task, results: list[Result], partial: bool = False) -> Verdict:
        raise ValueError("deduction is judged by verification(); nothing runs")


DEDUCTION = Deduction()
