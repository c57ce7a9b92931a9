"""CodeI/O's programs as tasks of both directions: real programs with generators of their inputs (arXiv 2502.07316), from reasoning-gym's file.

The file stands in the package's wheel and is read as a file: the package's own code would execute programs and generators in this process. Here both
run in the jail. Only programs that import nothing are taken, and of each the first generated input that is short, with a short output.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from azr_nemo.evaluation.code.called import called_f
from azr_nemo.evaluation.code.dataset_rows import Row
from azr_nemo.evaluation.code.prediction import PredictionSuite
from azr_nemo.evaluation.suite import Item, Tools
from azr_nemo.sandbox.executor import Limits, Outcome, Request
from azr_nemo.tasks.parsing import PARSE_ERRORS, NotLiteral, parsed, read_literal
from azr_nemo.tasks.task import Task, TaskType

# By CPU time: on a busy machine the same programs are taken as on an idle one.
BRIEF = Limits(wall_s=120.0, cpu_s=2.0, memory_mb=1024)
DRAWS = 6  # generated inputs of a program, of which the first that fits is taken
LONGEST_PROGRAM, LONGEST_VALUE = 2000, 200  # characters
MOST = 400  # programs, in the order of the file
ENTRY = "main_solution"


@dataclass
class CodeIOSuite(PredictionSuite):
    """See the module."""

    def convert(self, rows: Iterable[Mapping[str, Any]], tools: Tools) -> list[Item]:
        """See `Suite.convert`. A row that is no task for this is passed over: there are seven times as many as are taken."""
        read = [(number, *found) for number, row in enumerate(rows, 1) if (found := program_and_generator(Row(self.name, number, row)))]
        drawn = tools.executor.run(Request(generator, tuple(map(str, range(DRAWS))), BRIEF) for _, _, generator in read)
        asked = [(number, program, arguments(outcomes)) for (number, program, _), outcomes in zip(read, drawn, strict=True)]
        asked = [(number, program, inputs) for number, program, inputs in asked if inputs]
        ran = tools.executor.run(Request(program, inputs, BRIEF, deterministic=True) for _, program, inputs in asked)
        items = []
        for (number, program, inputs), outcomes in zip(asked, ran, strict=True):
            pairs = [(given, str(out.value)) for given, out in zip(inputs, outcomes, strict=True) if _short(out)]
            if pairs:
                items.append(self._item(f"codeio_{number}", Task(self.kind, program, pairs[0][:1], pairs[0][1:])))
        return items[:MOST]


def program_and_generator(row: Row) -> tuple[str, str] | None:
    """The program with its entry called `f`, and one whose `f(seed)` gives its keyword arguments; None where it imports something or is too long."""
    code, generator = row.get("code_sample", str), row.get("input_generator", str)
    try:
        program, _ = called_f(code, f"{ENTRY}()")
        imports = any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(parsed(program)))
        parsed(generator)
    except (ValueError, *PARSE_ERRORS):
        return None
    if imports or len(program) > LONGEST_PROGRAM:
        return None
    return program, f"from random import Random\n\n{generator}\n\ndef f(seed):\n    return generate_inputs(Random(seed))\n"


def arguments(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """The argument texts of what a generator gave, each once, without those that are no keywords or too long."""
    found: list[str] = []
    for outcome in outcomes:
        try:
            values = read_literal(outcome.value) if outcome.ok and outcome.value is not None else None
        except NotLiteral:
            continue
        if isinstance(values, dict) and values and all(isinstance(name, str) and name.isidentifier() for name in values):
            text = ", ".join(f"{name}={value!r}" for name, value in values.items())
            if len(text) <= LONGEST_VALUE and text not in found:
                found.append(text)
    return tuple(found)


def _short(outcome: Outcome) -> bool:
    return outcome.ok and outcome.value is not None and len(outcome.value) <= LONGEST_VALUE


ORIGIN = "get the wheel of reasoning-gym 0.1.25 (`pip download --no-deps reasoning-gym==0.1.25`) and unpack its reasoning_gym/data/codeio.jsonl.gz"
CODEIO_INPUT = CodeIOSuite("codeio_input", TaskType.ABDUCTION, MOST, ORIGIN, 8096)
CODEIO_OUTPUT = CodeIOSuite("codeio_output", TaskType.DEDUCTION, MOST, ORIGIN, 8096)
