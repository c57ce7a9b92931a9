"""A task type of one's own: the solver sees a program and an input, and names the type of the output.

azr-nemo train extensions='[examples/task_type.py]' selfplay.task_types='[deduction,abduction,output_type]' ...
"""

from collections.abc import Sequence

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import fence, tagged
from azr_nemo.tasks.marked import joined, template
from azr_nemo.tasks.parsing import read_literal
from azr_nemo.tasks.task import Calls, PromptOptions, PromptText, Refusal, Result, Task, TaskType, Verdict
from azr_nemo.tasks.triplet import Triplet


class OutputType(Triplet):
    """Proposed like deduction and abduction, as a program with one input, in whatever style the run is asked in. Nothing runs to judge it."""

    type = TaskType.new("output_type")

    def solve_prompt(self, task: Task, options: PromptOptions) -> PromptText:
        # What `template` marks may become special tokens; the task's texts are what a model wrote, and stay data.
        shown = fence("python", task.program) + fence("input", task.input)
        return PromptText(joined(template("# which type does f return?\n"), shown), template("```type\n"))

    def parse_answer(self, text: str, options: PromptOptions) -> str | Refusal:
        found = tagged(text, "type")
        return found[0].strip() if found else Refusal("format", "there is no closed type fence")

    def known_answer(self, task: Task) -> str:
        return type(read_literal(task.output)).__name__

    def answer_text(self, answer: str, options: PromptOptions) -> str:
        return fence("type", answer).removeprefix("```type\n")

    def verification(self, task: Task, answer: str, allowed_imports: Sequence[str] = ()) -> Calls | Verdict:
        return Verdict(1.0, "right") if answer == self.known_answer(task) else Verdict(0.0, "wrong_value")

    def score(self, task: Task, results: list[Result], partial: bool = False) -> Verdict:
        raise ValueError("verification() says it all; nothing runs")


KINDS[OutputType.type] = OutputType()
