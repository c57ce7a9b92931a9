"""HumanEval+ and MBPP+: functions, tested on EvalPlus' many inputs beside the original few.

Expected outputs are the canonical solution's own, from the jail. Nothing of the evalplus package is used: its loaders download, and its checker
executes what a model wrote in a fork of the process that asks for it.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from azr_nemo.evaluation.code import same_output
from azr_nemo.evaluation.code.code_blocks import parses, stated
from azr_nemo.evaluation.code.dataset_rows import Row, numbered
from azr_nemo.evaluation.code.in_jail import Refused, literal
from azr_nemo.evaluation.code.sanitize import sanitized
from azr_nemo.evaluation.code.solution import RIGHT, calls_in_turn, known, limits, program, reason, returned, then
from azr_nemo.evaluation.suite import Grade, Group, Item, Tools
from azr_nemo.sandbox.executor import Outcome, Request, Status
from azr_nemo.tasks.fences import fence


def _row(element: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda value: [element(each) for each in value]


def _deep(value: Any) -> Any:
    return tuple(_deep(each) for each in value) if isinstance(value, list) else value


def _same(value: Any) -> Any:
    return value


def _set(value: Any) -> Any:
    return set(value) if isinstance(value, list) and value else {}


def _if_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _table(value: Any) -> Any:
    return {key: tuple(each) for key, each in value.items()}


# Per argument what makes it of its JSON value; the last one holds for all further arguments.
SHAPES: list[tuple[str, tuple[Callable[[Any], Any], ...]]] = [
    ("2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809", (tuple,)),
    ("63 64 70 94 120 237 272 299 400 409 417 438 473 614 780", (_row(tuple),)),
    ("75 413 444 753", (_row(tuple), _same)),
    ("106 750", (_same, tuple)),
    ("115", (_row(_set),)),
    ("124", (float, complex)),
    ("250 405 446 617 720 763 808 307", (tuple, _same)),
    ("259 401 445", (lambda value: tuple(map(tuple, value)),)),
    ("278", (lambda value: tuple(_if_list(each) for each in value),)),
    ("722", (_table, _same)),
    ("252", (complex,)),
    ("580 615 791", (_deep,)),
]
BY_TASK = {int(number): shapes for numbers, shapes in SHAPES for number in numbers.split()}


def typed(task_id: str, arguments: list[Any]) -> list[Any]:
    """The arguments of one call. task_id: "Mbpp/2". Raises ValueError, TypeError or AttributeError for what does not fit the task."""
    shapes = BY_TASK.get(int(task_id.split("/")[-1]), (_same,))
    return [shapes[min(place, len(shapes) - 1)](value) for place, value in enumerate(arguments)]


ASKED = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
CANONICAL_S = 10.0  # an input that the canonical solution does not finish in this time is left out
LEAST_S, FACTOR = 10.0, 8.0  # of one call: the original's `--min-time-limit 10 --gt-time-limit-factor 8`
ALL_S = 60.0  # of all calls, as EvalPlus has it, and twice what the canonical solution takes here


@dataclass
class EvalPlusSuite:
    """One of the two data sets. `parts` of a grade: base, whether the original's inputs pass; plus, whether they and EvalPlus' further ones do, which is
    what EvalPlus reports as "base + extra" and what counts as right. Testing ends at the first output that is wrong.

    reference of an item: prompt, entry_point, solution (canonical, whole), inputs (argument texts), base (how many of them are the original's), outputs
    (`in_jail.text`), atol, view, oracle, seconds (of a call), all_seconds, left_out (inputs that the canonical solution does not finish).
    """

    name: str
    dataset: Literal["humaneval", "mbpp"]
    size: int
    origin: str
    group: Group = "code"
    template: str = "r1"
    max_tokens: int = 8096

    def convert(self, rows: Iterable[Mapping[str, Any]], tools: Tools) -> list[Item]:
        """See `Suite.convert`. Runs every canonical solution on all of its inputs, which takes minutes."""
        pending = []
        for row, name in numbered(self.name, rows, "task_id"):
            reference = self._reference(row, name)
            source = program("graded", reference["solution"], reference["entry_point"], reference["view"])
            run = tools.executor.submit(Request(source, tuple(reference["inputs"]), limits(CANONICAL_S)))
            pending.append((row, name, reference, run))
        return [Item(name, question(reference["prompt"]), _finished(row, reference, run.result())) for row, name, reference, run in pending]

    def submit(self, item: Item, response: str, tools: Tools) -> "Future[Grade]":
        reference = item.reference
        inputs, outputs, base = reference["inputs"], reference["outputs"], reference["base"]
        code = sanitized(response, reference["prompt"], reference["entry_point"])
        if not parses(code):
            return known(Grade(False, "syntax", code, {"base": False, "plus": False}))

        def grade(index: int, found: str) -> str:
            good = same_output.right(found, outputs[index], reference["atol"], reference["oracle"], inputs[index])
            return RIGHT if good else "wrong_value"

        source = program("graded", code, reference["entry_point"], reference["view"])
        run = calls_in_turn(tools.executor, source, inputs, grade, reference["seconds"], reference["all_seconds"])
        return then(run, lambda end: Grade(end[1] == RIGHT, end[1], code, {"base": end[0] >= base, "plus": end[1] == RIGHT}))

    def ideal(self, item: Item) -> str:
        return stated(item.reference["solution"])

    def wrong(self, item: Item) -> str:
        return stated(wrong_function(item.reference["entry_point"], raises=item.reference["view"] == "any"))

    def _reference(self, row: Row, name: str) -> dict[str, Any]:
        prompt, entry_point = row.get("prompt", str), row.get("entry_point", str)
        retype: Callable[[str, list[Any]], list[Any]] = typed if self.dataset == "mbpp" else lambda name, arguments: arguments
        if "base_input" not in row.values and isinstance(row.values.get("test", row.values.get("test_list")), str | list):
            raise row.error("it has a text of tests, as the Hugging Face hub's copy and the original set have, not EvalPlus' inputs")
        base = row.get("base_input", list)
        plus = [] if row.values.get("plus_input") == {} else row.get("plus_input", list)  # Mbpp/793 has none, and says so in this way
        try:
            inputs = [", ".join(literal(each, argument=True) for each in retype(name, given)) for given in [*base, *plus]]
        except (Refused, ValueError, TypeError, AttributeError) as error:
            raise row.error(f"an input cannot be read: {error}") from None
        atol = row.values.get("atol", 0)
        if not isinstance(atol, int | float) or not base:
            raise row.error("atol must be a number, and base_input must not be empty")
        return {
            "prompt": prompt, "entry_point": entry_point, "solution": prompt + row.get("canonical_solution", str), "inputs": inputs,
            "base": len(base), "atol": atol, "view": same_output.view(self.dataset, entry_point),
            "oracle": same_output.oracle(self.dataset, entry_point),
        }  # fmt: skip


def question(prompt: str) -> str:
    """EvalPlus' words for an instruction model."""
    return f"{ASKED}\n{fence('python', prompt.strip())}"


def wrong_function(entry_point: str, raises: bool = False) -> str:
    """A well-formed function that is right nowhere. raises: fails instead of returning something, where anything returned is right."""
    body = "raise ValueError" if raises else "return 'wrong'"
    return f"def {entry_point}(*arguments):\n    {body}"


def _finished(row: Row, reference: dict[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    """The reference with the canonical solution's outputs, less the inputs that it does not finish."""
    inputs, outputs, left_out, base = [], [], [], reference["base"]
    slowest = whole = 0.0
    for index, (given, outcome) in enumerate(zip(reference["inputs"], outcomes, strict=True)):
        output = returned(outcome)
        if output is not None:
            inputs.append(given)
            outputs.append(output)
            slowest, whole = max(slowest, outcome.wall_s), whole + outcome.wall_s
        elif outcome.status in (Status.TIMEOUT, Status.MEMORY):
            left_out.append(given)
            base -= index < reference["base"]
        else:
            raise row.error(f"the canonical solution fails on the input {given[:80]} ({outcome.error or reason(outcome)})")
    if not base:
        raise row.error(f"the canonical solution finishes none of its inputs in {CANONICAL_S:g} s")
    times = {"seconds": max(LEAST_S, math.ceil(FACTOR * slowest)), "all_seconds": ALL_S + math.ceil(2 * whole)}
    return {**reference, **times, "inputs": inputs, "outputs": outputs, "base": base, "left_out": left_out}


HUMANEVAL_PLUS = EvalPlusSuite(
    "humaneval_plus", "humaneval", 164,
    "download HumanEvalPlus.jsonl.gz v0.1.10 from github.com/evalplus/humanevalplus_release/releases and unpack it",
)  # fmt: skip
MBPP_PLUS = EvalPlusSuite(
    "mbpp_plus", "mbpp", 378,
    "download MbppPlus.jsonl.gz v0.2.0 from github.com/evalplus/mbppplus_release/releases and unpack it",
)  # fmt: skip
