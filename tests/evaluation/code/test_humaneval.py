"""HumanEval: its canonical solutions are right, and nothing that a solution does to its own process makes it so."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.errors import UserError
from azr_nemo.evaluation.code import HUMANEVAL
from azr_nemo.evaluation.code.code_blocks import stated

ROW = {
    "task_id": "HumanEval/0",
    "prompt": 'from typing import List\n\n\ndef one() -> int:\n    return 1\n\n\ndef add(numbers: List[int], by: int) -> List[int]:\n    """Adds."""\n',
    "entry_point": "add",
    "canonical_solution": "    return [number + by * one() for number in numbers]\n",
    "test": "def check(candidate):\n    assert candidate([1, 2], 3) == [4, 5]\n    assert list(add([], 1)) == []\n    assert candidate([1], 0) == [1]\n",
}


@pytest.fixture(scope="module")
def item(tools):
    (made,) = HUMANEVAL.convert([ROW], tools)
    return made


def test_the_tests_calls_are_recorded(item):
    assert item.reference["inputs"] == ["[1, 2], 3", "[], 1", "[1], 0"]
    assert "Adds." in item.question
    assert "return [number" not in item.question


@pytest.mark.parametrize(
    "response",
    [
        "    return [number + by for number in numbers]",
        "```python\n    return [number + by * one() for number in numbers]\n```",
        stated("def add(numbers, by):\n    return [number + by for number in numbers]"),
        stated("def f(a, b):\n    return a + b\ndef add(numbers, by):\n    return [f(number, by) for number in numbers]"),
        stated("class Numbers(list):\n    pass\ndef add(numbers, by):\n    return Numbers(number + by for number in numbers)"),
        stated(
            "add = lambda numbers, by: [number + by for number in numbers]\nif __name__ == '__main__':\n    raise SystemExit(add(input()))"
        ),
    ],
)
def test_functions_and_continuations_are_right(item, grade, response):
    assert grade(HUMANEVAL, item, response).reason == "right"


EQUAL = "class Equal:\n    def __eq__(self, other):\n        return True\n    def __iter__(self):\n        return iter([])\n"


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        ("def add(numbers, by):\n    return [number - by for number in numbers]", "wrong_value"),
        ("def add(numbers, by):\n    return 'abc'", "wrong_value"),
        (f"{EQUAL}def add(numbers, by):\n    return Equal()", "not_literal"),
        (f"{EQUAL}class Equals(Equal, list):\n    pass\ndef add(numbers, by):\n    return Equals()", "wrong_value"),
        ("import os\ndef add(numbers, by):\n    os._exit(0)", "crashed"),
        ("import os\nx = os._exit(0)\ndef add(numbers, by):\n    return x", "crashed"),
        ("def add(numbers, by):\n    raise SystemExit(0)", "error"),
        ("def add(numbers, by):\n    return open('/etc/passwd').read()", "error"),
        ("def check(candidate):\n    pass\ndef add(numbers, by):\n    return None", "wrong_value"),
        ("import os\nx = os.write(3, b'\\x05\\x00\\x00\\x00[1,2]')\ndef add(numbers, by):\n    return [x]", "crashed"),
        ("import builtins\nbuiltins.AssertionError = BaseException\ndef add(numbers, by):\n    return [builtins]", "not_literal"),
        ("def add(numbers, by):\n    return 'x' * 10 ** 6", "not_literal"),
        ("def add(numbers, by):\n    return [add]", "not_literal"),
        ("def add(numbers, by):\n    yield 1", "not_literal"),
        ("def add(:", "syntax"),
        ("return 1", "wrong_value"),
        ("def add():\n    return 1", "error"),
    ],
)
def test_hostile_and_wrong_solutions_are_not_right(item, grade, solution, reason):
    verdict = grade(HUMANEVAL, item, stated(solution))
    assert not verdict.right
    assert verdict.reason == reason


@pytest.mark.slow
def test_an_endless_loop_is_a_timeout_that_costs_one_time_limit(item, grade):
    assert grade(HUMANEVAL, item, stated("def add(numbers, by):\n    while True: pass")).reason == "timeout"


@settings(max_examples=50)
@given(st.text() | st.text().map(stated) | st.text(alphabet="`<answer>/ python\n'\"()").map("<answer>".__add__))
def test_any_text_is_graded(item, grade, response):
    assert not grade(HUMANEVAL, item, response).right


@pytest.mark.parametrize("key", ["task_id", "prompt", "entry_point", "canonical_solution", "test"])
def test_a_row_that_lacks_something_is_named(tools, key):
    with pytest.raises(UserError, match=rf"humaneval, row 2.*{key} is missing"):
        HUMANEVAL.convert(
            [ROW, {name: value for name, value in ROW.items() if name != key} | ({} if key == "task_id" else {"task_id": "x"})], tools
        )


def test_rows_that_contradict_themselves_are_named(tools):
    with pytest.raises(UserError, match=r"row 1 \(HumanEval/0\): the test does not pass with the canonical solution"):
        HUMANEVAL.convert([ROW | {"canonical_solution": "    return []\n"}], tools)
    with pytest.raises(UserError, match="was in an earlier row"):
        HUMANEVAL.convert([ROW, ROW], tools)
    with pytest.raises(UserError, match="row 1: expected an object"):
        HUMANEVAL.convert([7], tools)


@pytest.mark.slow
def test_all_canonical_solutions_are_right_and_no_wrong_one(tools, public_rows, wrongly_graded):
    items = HUMANEVAL.convert(public_rows("HumanEval.jsonl.gz"), tools)
    assert len(items) == HUMANEVAL.size
    assert wrongly_graded(HUMANEVAL, items) == ({}, {})
