"""Induction: given the first half of the input/output pairs and a message, write a program that also gives the hidden half."""

import re
from collections.abc import Sequence

from azr_nemo.tasks.fences import fence, tagged
from azr_nemo.tasks.parsing import same_literal, storable
from azr_nemo.tasks.program import canonical_input, check, normalise
from azr_nemo.tasks.styles import style
from azr_nemo.tasks.task import Calls, PromptOptions, PromptText, Proposal, Refusal, Result, Task, TaskType, Verdict
from azr_nemo.tasks.values import value_arguments


class Induction:
    """Proposed as inputs and a message for a program that is given; solved by a program."""

    type = TaskType.INDUCTION

    def propose_prompt(self, references: list[Task], options: PromptOptions) -> PromptText:
        return style(options).prompt("propose_induction", options, program=references[0].program)

    def parse_proposal(self, text: str, references: list[Task], options: PromptOptions) -> Proposal | Refusal:
        """The first `options.pairs` input fences, all different, and the first message fence, which must not carry the program."""
        answer = style(options).read("propose_induction", text)
        if isinstance(answer, Refusal):
            return answer
        inputs = tuple(found.strip() for found in tagged(answer, "input")[: options.pairs])
        if len(inputs) < options.pairs:
            return Refusal("format", f"there are {len(inputs)} closed input fences, {options.pairs} are asked for")
        for argument in inputs:
            if isinstance(parsed := value_arguments(argument, references[0].program), Refusal):
                return parsed
        if len({canonical_input(argument) for argument in inputs}) < len(inputs):
            return Refusal("repeated_input", "two of the inputs are the same")
        messages = tagged(answer, "message")
        if not messages and options.style == "r1":
            return Refusal("format", "there is no closed message fence")
        message = storable(messages[0].strip()) if messages else ""
        if leaks(message, references[0].program):
            return Refusal("message_carries_program", "the message gives the program away")
        return Proposal(self.type, references[0].program, inputs, message)

    def proposal_text(self, proposal: Proposal, options: PromptOptions) -> str:
        body = "".join(fence("input", argument) for argument in proposal.inputs)
        if proposal.message or options.style == "r1":
            body += fence("message", proposal.message)
        return style(options).write("propose_induction", body, options)

    def task(self, proposal: Proposal, results: list[Result]) -> Task | Refusal:
        for result in results:
            if not result.ok or result.value is None:
                return Refusal(result.status, result.detail)
        return Task(self.type, proposal.program, proposal.inputs, tuple(str(result.value) for result in results), proposal.message)

    def solve_prompt(self, task: Task, options: PromptOptions) -> PromptText:
        half = shown(task)
        pairs = list(zip(task.inputs[:half], task.outputs[:half], strict=True))
        return style(options).prompt("solve_induction", options, pairs=pairs, message=task.message)

    def parse_answer(self, text: str, options: PromptOptions) -> str | Refusal:
        part = style(options).read("solve_induction", text)
        if isinstance(part, Refusal):
            return part
        found = tagged(part, "python")
        if not found:
            return Refusal("format", "there is no closed python fence")
        return found[-1].strip("\n")

    def answer_text(self, answer: str, options: PromptOptions) -> str:
        return style(options).write("solve_induction", fence("python", answer), options)

    def known_answer(self, task: Task) -> str:
        return task.program

    def verification(self, task: Task, answer: str, allowed_imports: Sequence[str] = ()) -> Calls | Verdict:
        refusal = check(answer, allowed_imports)
        return Verdict(0.0, refusal.reason) if refusal else Calls(answer, task.inputs[shown(task) :])

    def score(self, task: Task, results: list[Result], partial: bool = False) -> Verdict:
        """All hidden pairs must match; partial: the share of them that does is the score."""
        gold = task.outputs[shown(task) :]
        matches = [r.ok and r.value is not None and same_literal(r.value, g) for r, g in zip(results, gold, strict=True)]
        if all(matches):
            return Verdict(1.0, "right")
        failed = next((r.status for r in results if not r.ok), "wrong_value")
        return Verdict(sum(matches) / len(matches) if partial else 0.0, failed)


def shown(task: Task) -> int:
    """How many pairs the solver sees: the first half."""
    return len(task.inputs) // 2


def leaks(message: str, program: str) -> bool:
    """Whether the message defines `f` or repeats more than half of what the program says.

    Lines are compared token by token, so spaces and the kind of quotes do not hide one; lines of fewer than four tokens say too little.
    """
    if re.search(r"\bdef\s+f\s*\(", message):
        return True
    said = _tokens(message)
    for source in (program, normalise(program)):
        lines = [line for line in map(_tokens, source.splitlines()) if line.count(" ") > 4 and not line.startswith(" def f ")]
        # What is returned says as much without the keyword.
        lines = [value if (value := line.removeprefix(" return")).count(" ") > 4 else line for line in lines]
        if sum(line in said for line in lines) * 2 > len(lines):
            return True
    return False


def _tokens(text: str) -> str:
    """Words and signs, each between spaces."""
    return "".join(f" {token}" for token in re.findall(r"\w+|[^\w\s]", text.replace('"', "'"))) + " "


INDUCTION = Induction()
