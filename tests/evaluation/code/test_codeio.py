"""CodeI/O's rows become tasks by running programs and generators in the jail; what is no task is passed over."""

import gzip
import json
import os
from pathlib import Path

import pytest

from azr_nemo.errors import UserError
from azr_nemo.evaluation.code import CODEIO_INPUT, CODEIO_OUTPUT
from azr_nemo.evaluation.code.codeio import arguments, program_and_generator
from azr_nemo.evaluation.code.dataset_rows import Row
from azr_nemo.sandbox.executor import Outcome, Status

PROGRAM = (
    "# import necessary packages\n\ndef twice(x):\n    return 2 * x\n\ndef main_solution(n, word):\n    return {'out': word * twice(n)}"
)
GENERATOR = "def generate_inputs(rng: Random) -> dict:\n    return {'n': rng.randint(1, 3), 'word': rng.choice('ab')}"


def row(code: str = PROGRAM, generator: str = GENERATOR) -> dict:
    return {"code_sample": code, "input_generator": generator}


def test_a_program_becomes_the_same_task_in_both_directions(tools):
    rows = [
        row(PROGRAM.replace("# import", "import math\n#")),
        row(),
        row(generator="def generate_inputs(rng):\n    return {}['x']"),
        row(generator="def generate_inputs(rng):\n    return {'n': 9, 'word': 'c' * 150}"),
        row(code=PROGRAM.replace("twice(n)", "twice(n, 1)")),
    ]
    (asked,), (turned,) = CODEIO_OUTPUT.convert(rows, tools), CODEIO_INPUT.convert(rows, tools)
    assert asked.id == turned.id == "codeio_2"
    assert asked.reference == turned.reference
    assert asked.reference["program"] == "def twice(x):\n    return 2 * x\n\ndef f(n, word):\n    return {'out': word * twice(n)}"
    given = {name: value for name, value in (part.split("=") for part in asked.reference["input"].split(", "))}
    assert asked.reference["output"] == repr({"out": given["word"].strip("'") * 2 * int(given["n"])})
    for suite, item in ((CODEIO_OUTPUT, asked), (CODEIO_INPUT, turned)):
        assert suite.submit(item, suite.ideal(item), tools).result().right
        assert not suite.submit(item, suite.wrong(item), tools).result().right


def test_the_same_rows_give_the_same_items(tools):
    assert CODEIO_OUTPUT.convert([row()] * 2, tools)[0].reference == CODEIO_OUTPUT.convert([row()] * 2, tools)[1].reference


@pytest.mark.parametrize(
    "code", ["def main_solution(x):\n    return random.random()", "def other(x):\n    return x", "def main_solution(:", "x" * 9]
)
def test_a_program_that_imports_or_lacks_its_entry_is_none(code):
    assert program_and_generator(Row("codeio_output", 1, row(code))) is None


def test_a_row_of_another_file_is_named():
    with pytest.raises(UserError, match="codeio_output, row 3: code_sample is missing"):
        program_and_generator(Row("codeio_output", 3, {"input_generator": ""}))


def test_only_short_keyword_arguments_are_taken_each_once():
    values = ["{'a': 1}", "{'a': 1}", "{'b c': 1}", "{}", "[1]", "{'a': '" + "x" * 300 + "'}", "oh"]
    outcomes = [Outcome(Status.OK, value) for value in values] + [Outcome(Status.ERROR, error="why")]
    assert arguments(outcomes) == ("a=1",)


@pytest.mark.skipif("AZR_CODEIO" not in os.environ, reason="AZR_CODEIO=codeio.jsonl.gz of reasoning-gym 0.1.25")
def test_the_public_file_has_enough_programs(tools):
    with gzip.open(Path(os.environ["AZR_CODEIO"]), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    items = CODEIO_OUTPUT.convert(rows, tools)
    assert len(items) > 250
    right = [CODEIO_INPUT.submit(item, CODEIO_INPUT.ideal(item), tools) for item in items[:40]]
    assert all(grade.result().right for grade in right)
