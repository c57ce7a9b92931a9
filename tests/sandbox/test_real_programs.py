"""Programs that models and people really wrote: each gives what it gave before, or there is a reason that has a name and a count."""

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from azr_nemo.sandbox.executor import Limits, Outcome, Request, Status

LIMITS = Limits(wall_s=20.0, cpu_s=20.0)
EQUAL = "equal"
CUT = "stored output was cut at 400 characters"
EXPRESSION = "stored output is an expression"
# Every row of every file. A program that is not deterministic was stored with the output of one run or of one hash seed.
EXPECTED = {
    "7b_coder_seed_io.jsonl": {EQUAL: 243, CUT: 7, "not_literal": 3, "nondeterministic": 3},
    "llama_64_seed_io.jsonl": {EQUAL: 59, CUT: 2, "not_literal": 2, "error ModuleNotFoundError": 1},
    "7b_coder_code_f_seed_io.jsonl": {
        EQUAL: 2463, CUT: 24, EXPRESSION: 1, "not_literal": 31, "nondeterministic": 36, "output_too_large": 1,
    },
    "llama_64_code_f_seed_io.jsonl": {EQUAL: 585, CUT: 10, EXPRESSION: 1, "not_literal": 30, "error ModuleNotFoundError": 10},
    "cruxeval_200.jsonl": {EQUAL: 200},
}  # fmt: skip


def reason(outcome: Outcome, stored: str, program: str) -> str:
    """Why the outcome is not the stored output, or that it is. A difference without a name is told with both texts."""
    if outcome.status is Status.ERROR:
        return f"error {str(outcome.error).split(':')[0]}"
    if outcome.value is None:
        return str(outcome.status)
    if outcome.value == stored or reads_as(stored, outcome.value):
        return EQUAL
    if f"{outcome.value[:200]}...{outcome.value[-200:]}" == stored:
        return CUT
    if stored == "dict(a=1, b=2)" and outcome.value == "{'a': 1, 'b': 2}":
        return EXPRESSION
    if "import secrets" in program:
        return "nondeterministic"  # it drew the same twice by chance: one in eight times for 'BBBBBBB B'
    return f"{outcome.value} instead of {stored}"


def reads_as(text: str, value: str) -> bool:
    try:
        return ast.literal_eval(text) == ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return False


def rows(path: Path) -> list[tuple[str, tuple[str, ...], list[str]]]:
    """Program, inputs, stored outputs."""
    with open(path, encoding="utf-8") as file:
        read = [json.loads(line) for line in file]
    return [
        (row.get("snippet") or row["code"], tuple(row.get("inputs") or [row["input"]]), row.get("outputs") or [row["output"]])
        for row in read
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_every_row_gives_its_stored_output_or_differs_for_a_known_reason(pool, shared_data, name):
    stored = rows(shared_data / name)
    results = pool.run(Request(program, inputs, LIMITS, deterministic=True) for program, inputs, _ in stored)
    assert [len(outcomes) for outcomes in results] == [len(outputs) for _, _, outputs in stored]
    reasons = Counter(
        reason(outcome, output, program)
        for outcomes, (program, _, outputs) in zip(results, stored, strict=True)
        for outcome, output in zip(outcomes, outputs, strict=True)
    )
    assert reasons == EXPECTED[name]
