"""Reasoning about a program: CRUXEval's two directions and LiveCodeBench's code execution, graded as self-play grades its own tasks."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from azr_nemo.evaluation.code.called import called_f
from azr_nemo.evaluation.code.code_blocks import stated
from azr_nemo.evaluation.code.dataset_rows import Row, numbered
from azr_nemo.evaluation.code.solution import known, then
from azr_nemo.evaluation.code.worked_examples import worked_examples
from azr_nemo.evaluation.suite import WITHOUT_ECHO, Grade, Group, Item, Tools
from azr_nemo.sandbox.executor import Limits
from azr_nemo.selfplay.validation import Verifier
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import tagged
from azr_nemo.tasks.marked import joined
from azr_nemo.tasks.other_inputs import repeats_output
from azr_nemo.tasks.parsing import NotLiteral, read_literal
from azr_nemo.tasks.program import one_call
from azr_nemo.tasks.prompting import render
from azr_nemo.tasks.task import Calls, PromptOptions, PromptText, Refusal, Task, TaskType, Verdict

LIMITS = Limits(wall_s=10.0, cpu_s=10.0, memory_mb=1024)
OPTIONS = PromptOptions()
TAGS = {TaskType.DEDUCTION: "output", TaskType.ABDUCTION: "input"}
R1_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass
class PredictionSuite:
    """Programs with one input and output each, as tasks of one type. rewritten: rows hold a whole call of a function of any name (`called_f`).

    An abduction answer is right when one honest call in the jail gives the output, which is an argument of many such calls (`without_echo` counts the
    others); a deduction answer is a literal. A response with the R1 format's tags is read as in training; one without any, as other templates give, by
    its last fence. In another style than R1 (`styled`) items are asked and read as that style does. reference of an item: program, input, output.
    """

    name: str
    kind: TaskType
    size: int
    origin: str
    max_tokens: int
    rewritten: bool = False
    group: Group = "reasoning"
    template: str = "r1"
    options: PromptOptions = OPTIONS
    shots: int = 0

    def styled(self, options: PromptOptions, shots: int = 0) -> "PredictionSuite":
        """See `Styled.styled`."""
        return replace(self, options=options, shots=shots)

    def prompt(self, item: Item) -> PromptText | None:
        """See `Styled.prompt`."""
        if self.options.style == "r1":
            return None
        prompt = KINDS[self.kind].solve_prompt(self._stored(item), self.options)
        examples = worked_examples(self.kind, self.shots, self.options)
        return replace(prompt, text=joined(examples, prompt.text)) if self.shots else prompt

    def convert(self, rows: Iterable[Mapping[str, Any]], tools: Tools) -> list[Item]:
        """See `Suite.convert`."""
        items = []
        for row, name in numbered(self.name, rows, "id"):
            items.append(self._item(name, self._task(row)))
        return items

    def _item(self, name: str, task: Task) -> Item:
        asked = render(f"solve_{self.kind.value}.r1.j2", options=OPTIONS, task=task).strip()
        return Item(name, asked, {"program": task.program, "input": task.input, "output": task.output})

    def submit(self, item: Item, response: str, tools: Tools) -> "Future[Grade]":
        answer = self._answer(response)
        if answer is None:
            return known(Grade(False, "no_answer"))
        verdict = self._verdict(self._stored(item), answer, Verifier(tools.executor, LIMITS))
        return then(verdict, lambda found: Grade(right := found.score == 1.0, found.reason, answer, self._parts(item, answer, right)))

    def _parts(self, item: Item, answer: str, right: bool) -> dict[str, bool]:
        """Of inputs alone: right, and not by writing the output down again."""
        return {WITHOUT_ECHO: right and not repeats_output(answer, item.reference["output"])} if self.kind is TaskType.ABDUCTION else {}

    def _verdict(self, task: Task, answer: str, verifier: Verifier) -> "Future[Verdict]":
        """What an input may say is a rule of self-play, where it is paid for. Here any one call is an answer that the jail lets run, as in CRUXEval's
        own grading: its inputs are empty, name the program's lists and call `x.reverse()`."""
        if self.kind is not TaskType.ABDUCTION:
            return verifier.submit(task, answer)
        call = one_call(answer)
        return known(Verdict(0.0, call.reason)) if isinstance(call, Refusal) else verifier.execute(task, Calls(task.program, (answer,)))

    def ideal(self, item: Item) -> str:
        return self._say(item, item.reference[TAGS[self.kind]])

    def wrong(self, item: Item) -> str:
        """A literal that is not the output; arguments that no program has."""
        wrong = f"({item.reference['output']}, 'wrong')" if self.kind is TaskType.DEDUCTION else "no_such_parameter='wrong'"
        return self._say(item, wrong)

    def _say(self, item: Item, answer: str) -> str:
        prompt = self.prompt(item)
        return prompt.prefill + KINDS[self.kind].answer_text(answer, self.options) if prompt else stated(answer, TAGS[self.kind])

    def _task(self, row: Row) -> Task:
        program, given, output = (row.get(key, str) for key in ("code", "input", "output"))
        if self.rewritten:
            try:
                program, given = called_f(program, given)
            except ValueError as error:
                raise row.error(str(error)) from None
        if isinstance(refusal := one_call(given), Refusal):
            raise row.error(f"the input {given[:60]!r} is not the arguments of a call: {refusal.detail}")
        try:
            read_literal(output)
        except NotLiteral:
            raise row.error(f"the output {output[:60]!r} is not a Python literal") from None
        return Task(self.kind, program, (given,), (output,))

    def _stored(self, item: Item) -> Task:
        return Task(self.kind, item.reference["program"], (item.reference["input"],), (item.reference["output"],))

    def _answer(self, response: str) -> str | None:
        answer = KINDS[self.kind].parse_answer(response, self.options)
        if isinstance(answer, str):
            return answer
        if self.options.style != "r1" or any(tag in response for tag in R1_TAGS):
            return None
        found = tagged(response, TAGS[self.kind])
        return found[-1].strip() if found else None


CRUXEVAL = "download cruxeval.jsonl from github.com/facebookresearch/cruxeval (data/)"
CRUXEVAL_INPUT = PredictionSuite("cruxeval_input", TaskType.ABDUCTION, 800, CRUXEVAL, 8096)
CRUXEVAL_OUTPUT = PredictionSuite("cruxeval_output", TaskType.DEDUCTION, 800, CRUXEVAL, 8096)
LCB_EXECUTION = PredictionSuite(
    "lcb_execution", TaskType.DEDUCTION, 479,
    "download the test split of huggingface.co/datasets/livecodebench/execution as JSON lines", 8096, rewritten=True,
)  # fmt: skip
