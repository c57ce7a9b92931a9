"""HumanEval as OpenAI published it: a function, and a test that calls it and asserts.

The test never runs where the solution does, which could forge its verdict or hand it an object that equals everything. Converting a row records the
calls that the test makes; grading makes those calls, and a jail without the solution then runs the test on the values that they returned.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from azr_nemo.evaluation.code.code_blocks import parses, stated
from azr_nemo.evaluation.code.dataset_rows import numbered
from azr_nemo.evaluation.code.evalplus import ALL_S, LEAST_S, question, wrong_function
from azr_nemo.evaluation.code.sanitize import sanitized
from azr_nemo.evaluation.code.solution import RIGHT, calls_in_turn, known, limits, program, read, reason, then
from azr_nemo.evaluation.suite import Grade, Group, Item, Tools
from azr_nemo.sandbox.executor import Outcome, Request
from azr_nemo.tasks.parsing import NotLiteral

MOST_REPLAYED = 1 << 20  # characters of all values that a test is given


@dataclass
class HumanEvalSuite:
    """reference of an item: prompt, entry_point, solution (canonical, whole), test, inputs (argument texts of the calls that the test makes)."""

    name: str = "humaneval"
    group: Group = "code"
    size: int = 164
    template: str = "r1"
    max_tokens: int = 8096
    origin: str = "download HumanEval.jsonl.gz from github.com/openai/human-eval (data/) and unpack it"

    def convert(self, rows: Iterable[Mapping[str, Any]], tools: Tools) -> list[Item]:
        """See `Suite.convert`. Runs every test on its canonical solution."""
        pending = []
        for row, name in numbered(self.name, rows, "task_id"):
            prompt, entry_point, test = row.get("prompt", str), row.get("entry_point", str), row.get("test", str)
            solution = prompt + row.get("canonical_solution", str)
            run = tools.executor.submit(Request(program("recorded", solution, entry_point, test), ("",), limits(LEAST_S)))
            pending.append((row, name, {"prompt": prompt, "entry_point": entry_point, "solution": solution, "test": test}, run))
        items = []
        for row, name, reference, run in pending:
            (outcome,) = run.result()
            try:
                inputs = read(outcome.value or "")
            except NotLiteral:
                inputs = None
            if not inputs:
                raise row.error(f"the test does not pass with the canonical solution ({outcome.error or 'it calls nothing'})")
            items.append(Item(name, question(reference["prompt"]), {**reference, "inputs": inputs}))
        return items

    def submit(self, item: Item, response: str, tools: Tools) -> "Future[Grade]":
        reference = item.reference
        prompt, entry_point, inputs = reference["prompt"], reference["entry_point"], reference["inputs"]
        code = sanitized(response, prompt, entry_point)
        if not parses(code):
            return known(Grade(False, "syntax", code))
        values: list[str] = []

        def grade(index: int, found: str) -> str:
            values.append(found)
            try:
                read(found)
            except NotLiteral:  # also the hash of what is too long
                return "not_literal"
            return RIGHT if sum(map(len, values)) <= MOST_REPLAYED else "output_too_large"

        def test(end: tuple[int, str]) -> "Future[Grade]":
            if end[1] != RIGHT:
                return known(Grade(False, end[1], code))
            source = program("replayed", prompt, entry_point, reference["test"])
            run = tools.executor.submit(Request(source, (f"[{', '.join(values)}]",), limits(LEAST_S)))
            return then(run, lambda outcomes: _grade(outcomes[0], code))

        source = program("graded", code, entry_point, "value")
        return then(calls_in_turn(tools.executor, source, inputs, grade, LEAST_S, ALL_S), test)

    def ideal(self, item: Item) -> str:
        return stated(item.reference["solution"])

    def wrong(self, item: Item) -> str:
        return stated(wrong_function(item.reference["entry_point"]))


def _grade(outcome: Outcome, code: str) -> Grade:
    """A failed assertion is a wrong value; so is what makes the test itself fail, such as a text where it adds numbers."""
    if outcome.ok and outcome.value == "True":
        return Grade(True, RIGHT, code)
    return Grade(False, "wrong_value" if outcome.status == "error" else reason(outcome), code)


HUMANEVAL = HumanEvalSuite()
