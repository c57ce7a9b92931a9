"""What deduction and abduction share: both are proposed as a program with one input, and differ in what the solver is not shown."""

from azr_nemo.tasks.composite import complete, prelude
from azr_nemo.tasks.fences import fence, tagged
from azr_nemo.tasks.program import check, strip, with_entry
from azr_nemo.tasks.styles import style
from azr_nemo.tasks.task import PromptOptions, PromptText, Proposal, Refusal, Result, Task, TaskType
from azr_nemo.tasks.values import value_arguments


class Triplet:
    """Proposing side of the two task types that are made of (program, input, output)."""

    type: TaskType
    shown: str  # what the solver sees beside the program: the fence's tag
    asked: str  # what it answers with

    def propose_prompt(self, references: list[Task], options: PromptOptions) -> PromptText:
        given = prelude(options.functions) if options.functions else ""
        return style(options).prompt("propose_triplet", options, kind=self.type.value, references=references, given=given)

    def parse_proposal(self, text: str, references: list[Task], options: PromptOptions) -> Proposal | Refusal:
        answer = style(options).read("propose_triplet", text)
        if isinstance(answer, Refusal):
            return answer
        programs, inputs = tagged(answer, "python"), tagged(answer, "input")
        if not programs or not inputs:
            return Refusal("format", "there is no closed python fence and input fence")
        program = strip(programs[0].strip("\n"), options.strip_comments, options.strip_globals, options.strip_prints)
        if options.rename_entry:
            program = with_entry(program)
        argument = inputs[0].strip()
        refusal = check(program, options.allowed_imports) or value_arguments(argument, program)
        if isinstance(refusal, Refusal):
            return refusal
        whole = complete(options.functions, program, options.allowed_imports) if options.functions else program
        return whole if isinstance(whole, Refusal) else Proposal(self.type, whole, (argument,))

    def proposal_text(self, proposal: Proposal, options: PromptOptions) -> str:
        return style(options).write("propose_triplet", fence("python", proposal.program) + fence("input", proposal.inputs[0]), options)

    def task(self, proposal: Proposal, results: list[Result]) -> Task | Refusal:
        (result,) = results
        if not result.ok or result.value is None:
            return Refusal(result.status, result.detail)
        return Task(self.type, proposal.program, proposal.inputs, (result.value,))

    def solve_prompt(self, task: Task, options: PromptOptions) -> PromptText:
        return style(options).prompt(f"solve_{self.type.value}", options, task=task)

    def parse_answer(self, text: str, options: PromptOptions) -> str | Refusal:
        """The last fence of the asked kind among those that the style reads."""
        part = style(options).read(f"solve_{self.type.value}", text)
        if isinstance(part, Refusal):
            return part
        found = tagged(part, self.asked)
        if not found:
            return Refusal("format", f"there is no closed {self.asked} fence")
        return found[-1].strip()

    def answer_text(self, answer: str, options: PromptOptions) -> str:
        return style(options).write(f"solve_{self.type.value}", fence(self.asked, answer), options)
