"""LiveCodeBench's code generation: functions and scripts, graded on all their tests as its own runner grades them."""

import base64
import json
import pickle
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.errors import UserError
from azr_nemo.evaluation.code import LIVECODEBENCH
from azr_nemo.evaluation.code.code_blocks import stated
from azr_nemo.evaluation.code.livecodebench import ContestTest, packed, same_output, unpacked
from azr_nemo.evaluation.eval_settings import EvalSettings
from azr_nemo.evaluation.suite import Tools
from azr_nemo.sandbox.local.pool import LocalPool


def cases(*pairs, kind):
    return json.dumps([{"input": given, "output": output, "testtype": kind} for given, output in pairs])


def private(text):
    return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


FUNCTIONAL = {
    "question_title": "pairs",
    "question_content": "Count the pairs with a sum of `target`.",
    "platform": "leetcode",
    "question_id": "2824",
    "contest_id": "biweekly-contest-111",
    "contest_date": "2023-08-19T00:00:00",
    "starter_code": "class Solution:\n    def countPairs(self, nums: List[int], target: int) -> int:\n        ",
    "difficulty": "easy",
    "public_test_cases": cases(("[-1, 1, 2, 3, 1]\n2", "2"), kind="functional"),
    "private_test_cases": private(cases(("[1]\n5", "0"), ("[2, 3, 3]\n5", "2"), kind="functional")),
    "metadata": '{"func_name": "countPairs"}',
}
STDIN = FUNCTIONAL | {
    "question_content": "Read n, then n numbers. Print their sum and their mean.",
    "platform": "atcoder",
    "question_id": "abc301_a",
    "starter_code": "",
    "public_test_cases": cases(("2\n1 2\n", "3\n1.5\n"), kind="stdin"),
    "private_test_cases": cases(("1\n4\n", "4\n4.0\n"), ("3\n1 1 1\n", "3 \n1.00\n"), kind="stdin"),
    "metadata": "{}",
}
COUNT = "class Solution:\n    def countPairs(self, nums: List[int], target: int):\n        return sum(a + b == target for a, b in combinations(nums, 2))"
SUM = "n = int(input())\nxs = list(map(int, input().split()))\nprint(sum(xs))\nprint(sum(xs) / n)"


@pytest.fixture(scope="module")
def items(tools):
    return LIVECODEBENCH.convert([FUNCTIONAL, STDIN], tools)


def test_rows_become_tests(items):
    functional, stdin = (unpacked(item.reference["tests"]) for item in items)
    assert functional == [ContestTest("[-1, 1, 2, 3, 1], 2", "2"), ContestTest("[1], 5", "0"), ContestTest("[2, 3, 3], 5", "2")]
    assert [test.input for test in stdin] == ["2\n1 2\n", "1\n4\n", "3\n1 1 1\n"]
    assert [item.reference["method"] for item in items] == ["countPairs", ""]
    assert "def countPairs" in items[0].question
    assert "standard input" in items[1].question


def test_ideal_responses_are_right_and_wrong_ones_wrong(items, wrongly_graded):
    assert wrongly_graded(LIVECODEBENCH, items) == ({}, {})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (COUNT, "right"),
        ("def countPairs(nums, target):\n    return sum(a + b == target for a, b in itertools.combinations(nums, 2))", "right"),
        (COUNT.replace("sum(", "1.0 * sum("), "right"),
        (COUNT.replace("== target", "< target"), "wrong_value"),
        (COUNT.replace("List[int]", "Lost[int]"), "error"),
        (f"# class Solution would do\n{COUNT.replace('class Solution:', 'class Solved:')}\ncountPairs = Solved().countPairs", "right"),
        (f"'Counts.'\nfrom __future__ import annotations\n{COUNT.replace('List[int]', 'Lost[int]')}", "right"),
        ("class Solution:\n    def other(self):\n        pass", "error"),
        ("class Solution:\n    def countPairs(self, *a):\n        os._exit(0)\nimport os", "crashed"),
        ("class Solution:\n    def countPairs(self, *a):\n        return type('E', (), {'__eq__': lambda *_: True})()", "not_literal"),
        ("class Solution:\n    def countPairs(self, *a):\n        return open('/etc/passwd').read()", "error"),
        ("class Solution:\n    def", "syntax"),
    ],
)
def test_functions_are_called(items, grade, code, reason):
    assert grade(LIVECODEBENCH, items[0], stated(code)).reason == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (SUM, "right"),
        (f"def main():\n    {SUM.replace(chr(10), chr(10) + '    ')}\nif __name__ == '__main__':\n    main()\n    exit()", "right"),
        ("_, *rest = sys.stdin.read().split()\nxs = list(map(int, rest))\nprint(sum(xs), Fraction(sum(xs), len(xs)), sep='\\n')", "error"),
        (SUM.replace("print(sum(xs))", "print('  ', sum(xs))"), "right"),
        (f"'Adds.'\nfrom __future__ import annotations\nassert __doc__ == 'Adds.'\n{SUM}", "right"),
        (
            "_, *xs = map(int, open('/dev/stdin').read().split())\nprint(sum(xs), sum(xs) / len(xs), sep='\\n', file=open('/dev/stdout', 'w'))",
            "right",
        ),
        (SUM.replace("print(sum(xs))", "print(sum(xs), 'x')"), "wrong_value"),
        (SUM + "\nprint()\nprint(1)", "wrong_value"),
        (SUM + "\nraise ValueError", "error"),
        ("print('x' * 10 ** 8)", "output_too_large"),
        ("import os\nos._exit(0)", "wrong_value"),
        ("print(open('/etc/passwd').read())", "error"),
        ("print(", "syntax"),
        ("", "wrong_value"),
    ],
)
def test_scripts_are_run(items, grade, code, reason):
    assert grade(LIVECODEBENCH, items[1], stated(code)).reason == reason


def test_solutions_may_use_numpy_as_an_evaluation_is_set_up(items):
    code = "import numpy as np\nn, xs = int(input()), np.array(input().split(), dtype=int)\nprint(xs.sum())\nprint(xs.mean())"
    with LocalPool(workers=1, modules=EvalSettings().executor.modules) as pool:
        assert LIVECODEBENCH.submit(items[1], stated(code), Tools(pool)).result().right


@pytest.mark.slow
def test_endless_loops_are_timeouts(items, grade):
    assert (
        grade(LIVECODEBENCH, items[0], stated("class Solution:\n    def countPairs(self, *a):\n        while True: pass")).reason
        == "timeout"
    )
    assert grade(LIVECODEBENCH, items[1], stated("while True: pass")).reason == "timeout"


@settings(max_examples=30)
@given(st.text() | st.text().map(stated))
def test_any_text_is_graded(items, grade, response):
    for item in items:
        assert not grade(LIVECODEBENCH, item, response).right


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2\n", "1 2", True),
        (" 1 2 \n 3", "1 2\n3\n\n", True),
        ("1.0 2", "1 2", True),
        ("1e3", "1000", True),
        ("50000000000000000", "50000000000000001", False),
        ("1", "1\n2", False),
        ("1\n\n2", "1\n2", False),
        ("Yes", "YES", False),
        ("1 2", "1", False),
        ("", "\n", True),
        ("nan", "nan", True),
        ("nan ", "NaN", False),
    ],
)
def test_outputs_are_compared_line_by_line_and_numbers_as_decimals(printed, expected, same):
    assert same_output(printed, expected) is same


@given(st.text(), st.text())
def test_any_outputs_can_be_compared(printed, expected):
    assert same_output(printed, expected) in (True, False)


def test_an_input_may_end_with_an_empty_line(tools):
    row = FUNCTIONAL | {"public_test_cases": cases(("[1, 4]\n5\n", "1"), kind="functional"), "private_test_cases": "[]"}
    (item,) = LIVECODEBENCH.convert([row], tools)
    assert unpacked(item.reference["tests"]) == [ContestTest("[1, 4], 5", "1")]


def test_long_outputs_are_compared_whole(tools, grade):
    row = FUNCTIONAL | {
        "public_test_cases": cases(("[3]\n100000", json.dumps(list(range(100000)))), kind="functional"),
        "private_test_cases": "[]",
    }
    (item,) = LIVECODEBENCH.convert([row], tools)
    solution = "class Solution:\n    def countPairs(self, nums, target):\n        return {}"
    assert grade(LIVECODEBENCH, item, LIVECODEBENCH.ideal(item)).right
    assert grade(LIVECODEBENCH, item, stated(solution.format("tuple(range(target))"))).right
    assert not grade(LIVECODEBENCH, item, stated(solution.format("list(range(target - 1)) + [0]"))).right


@given(st.lists(st.tuples(st.text(), st.text())))
def test_packed_tests_are_unpacked(pairs):
    made = [ContestTest(*pair) for pair in pairs]
    assert unpacked(packed(made)) == made


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"private_test_cases": private(Bomb())}, "pickle holds"),
        ({"private_test_cases": private(["[]", "[]"])}, "pickle holds"),
        ({"private_test_cases": private("not JSON")}, "JSONDecodeError"),
        ({"private_test_cases": "*"}, "tests cannot be read"),
        ({"private_test_cases": base64.b64encode(b"abc").decode()}, "tests cannot be read"),
        ({"private_test_cases": '[{"input": "1"}]'}, "KeyError"),
        ({"private_test_cases": "[7]"}, "TypeError"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "tests must be texts"),
        ({"public_test_cases": cases(("1 2\n2", "1"), kind="functional")}, "JSONDecodeError"),
        ({"public_test_cases": cases(("[1]\n2", "NaN"), kind="functional")}, "nan"),
        ({"metadata": "{}"}, "all stdin"),
        ({"metadata": "[]"}, "AttributeError"),
        ({"metadata": None}, "metadata is NoneType"),
        ({"starter_code": 1}, "starter_code is int"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(tools, change, what):
    with pytest.raises(UserError, match=rf"livecodebench, row 1 \(2824\): .*{what}"):
        LIVECODEBENCH.convert([FUNCTIONAL | change], tools)
