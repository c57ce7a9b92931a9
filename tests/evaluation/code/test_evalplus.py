"""HumanEval+ and MBPP+: canonical solutions pass the base and the further inputs, wrong ones do not, and rules of single tasks hold."""

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.errors import UserError
from azr_nemo.evaluation.code import HUMANEVAL_PLUS, MBPP_PLUS, evalplus
from azr_nemo.evaluation.code.code_blocks import stated

PLUS = {
    "task_id": "HumanEval/2",
    "prompt": 'def truncate_number(number: float) -> float:\n    """Decimal part."""\n',
    "entry_point": "truncate_number",
    "canonical_solution": "    return number % 1.0\n",
    "contract": "",
    "base_input": [[3.5], [1.33]],
    "plus_input": [[0.5], [-2.25], [1e300]],
    "atol": 1e-06,
}
ZERO = {
    "task_id": "HumanEval/32",
    "prompt": "def find_zero(xs):\n    '''A zero of the polynomial.'''\n",
    "entry_point": "find_zero",
    "canonical_solution": "    return -xs[0] / xs[1]\n",
    "base_input": [[[1, 2]]],
    "plus_input": [[[-6, 3]]],
    "atol": 0.0001,
}
SHARED = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nShared elements.\n"""\n',
    "entry_point": "similar_elements",
    "canonical_solution": "\ndef similar_elements(one, other):\n  return tuple(set(one) & set(other))\n",
    "base_input": [[[3, 4, 5, 6], [5, 7, 4, 10]]],
    "plus_input": [[[], []], [["a"], ["a", 1.5]]],
    "atol": 0,
}
MATCH = {
    "task_id": "Mbpp/737",
    "prompt": '"""\nStarts with a vowel.\n"""\n',
    "entry_point": "check_str",
    "canonical_solution": "\nimport re\ndef check_str(text):\n    return re.match('[aeiou]', text)\n",
    "base_input": [["annie"], ["dawood"]],
    "plus_input": {},
    "atol": 0,
}


@pytest.fixture(scope="module")
def plus(tools):
    return HUMANEVAL_PLUS.convert([PLUS, ZERO], tools)


@pytest.fixture(scope="module")
def mbpp(tools):
    return MBPP_PLUS.convert([SHARED, MATCH], tools)


def test_rows_become_calls_and_outputs(plus, mbpp):
    reference = plus[0].reference
    assert reference["inputs"] == ["3.5", "1.33", "0.5", "-2.25", "1e+300"]
    assert [float(output) for output in reference["outputs"]] == pytest.approx([0.5, 0.33, 0.5, 0.75, 0.0])
    assert (reference["base"], reference["left_out"], reference["seconds"]) == (2, [], 10)
    assert mbpp[0].reference["inputs"][0] == "(3, 4, 5, 6), (5, 7, 4, 10)"
    assert mbpp[1].reference["outputs"] == ["True", "False"]


def test_ideal_responses_are_right_and_wrong_ones_wrong(plus, mbpp, wrongly_graded):
    assert wrongly_graded(HUMANEVAL_PLUS, plus) == ({}, {})
    assert wrongly_graded(MBPP_PLUS, mbpp) == ({}, {})


def test_base_and_further_inputs_have_verdicts_of_their_own(plus, grade):
    half = grade(HUMANEVAL_PLUS, plus[0], "    return number - int(number)\n")
    assert (half.right, half.reason, half.parts) == (False, "wrong_value", {"base": True, "plus": False})
    none = grade(HUMANEVAL_PLUS, plus[0], "    return number\n")
    assert none.parts == {"base": False, "plus": False}
    whole = grade(HUMANEVAL_PLUS, plus[0], "    return number % 1.0 + 1e-9\n")
    assert (whole.right, whole.parts) == (True, {"base": True, "plus": True})


def test_any_zero_of_the_polynomial_is_right(plus, grade):
    assert grade(HUMANEVAL_PLUS, plus[1], "    return -xs[0] / xs[1] + 1e-6\n").right
    assert not grade(HUMANEVAL_PLUS, plus[1], "    return 2.0\n").right
    assert not grade(HUMANEVAL_PLUS, plus[1], "    return None\n").right


def test_some_outputs_are_compared_as_sets_or_as_not_none(mbpp, grade):
    assert grade(MBPP_PLUS, mbpp[0], stated("def similar_elements(a, b):\n    return (x for x in a if x in b)")).right
    assert grade(MBPP_PLUS, mbpp[1], stated("def check_str(text):\n    return 'yes' if text[0] in 'aeiou' else None")).right
    assert grade(MBPP_PLUS, mbpp[1], stated("def check_str(text):\n    return text[0] in 'aeiou'")).right
    assert not grade(MBPP_PLUS, mbpp[1], stated("def check_str(text):\n    return 'yes' if text[0] in 'aeiou' else 'no'")).right


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os; os._exit(0)", "crashed"),
        ("return type('E', (), {'__eq__': lambda *_: True})()", "not_literal"),
        ("return type('E', (float,), {'__eq__': lambda *_: True})()", "wrong_value"),
        ("return open('/etc/hostname').read()", "error"),
        ("return float('nan')", "not_literal"),
        ("return 'x' * 10**6", "wrong_value"),
        ("return truncate_number(number)", "error"),
        ("return [[]] * 10**5", "wrong_value"),
        ("a = []; a.append(a); return a", "error"),
        ("raise SystemExit(0)", "error"),
        ("raise KeyboardInterrupt", "error"),
    ],
)
def test_hostile_solutions_are_not_right(plus, grade, body, reason):
    verdict = grade(HUMANEVAL_PLUS, plus[0], stated(f"def truncate_number(number):\n    {body}"))
    assert not verdict.right
    assert verdict.reason == reason


def test_a_solution_that_is_too_slow_in_all_is_a_timeout(plus, tools):
    item = replace(plus[0], reference={**plus[0].reference, "all_seconds": 0.3})
    slow = stated("import time\ndef truncate_number(number):\n    time.sleep(0.2)\n    return number % 1.0")
    verdict = HUMANEVAL_PLUS.submit(item, slow, tools).result()
    assert (verdict.reason, verdict.parts["base"]) == ("timeout", False)


def test_inputs_that_the_canonical_solution_does_not_finish_are_left_out(tools, monkeypatch):
    monkeypatch.setattr(evalplus, "CANONICAL_S", 0.5)
    row = PLUS | {"canonical_solution": "    while number < 0: pass\n    return number\n"}
    (item,) = HUMANEVAL_PLUS.convert([row], tools)
    assert (item.reference["left_out"], item.reference["base"], len(item.reference["outputs"])) == (["-2.25"], 2, 4)
    with pytest.raises(UserError, match=r"row 1 \(HumanEval/2\): the canonical solution finishes none"):
        HUMANEVAL_PLUS.convert([row | {"base_input": [[-1.0]]}], tools)


@settings(max_examples=settings().max_examples // 2)
@given(st.text() | st.text().map(stated) | st.text(alphabet="`<answer>/ python\n'\"()").map("<answer>".__add__))
def test_any_text_is_graded(mbpp, grade, response):
    assert not grade(MBPP_PLUS, mbpp[0], response).right


@pytest.mark.parametrize("key", ["prompt", "entry_point", "canonical_solution", "base_input", "plus_input"])
def test_a_row_that_lacks_something_is_named(tools, key):
    with pytest.raises(UserError, match=rf"mbpp_plus, row 1 \(Mbpp/2\): {key} is missing"):
        MBPP_PLUS.convert([{name: value for name, value in SHARED.items() if name != key}], tools)


@pytest.mark.parametrize(
    "change",
    [
        {"base_input": [[3, 4]]},
        {"base_input": [7]},
        {"base_input": []},
        {"base_input": [[float("nan"), []]]},
        {"atol": "much"},
        {"canonical_solution": "def similar_elements(:"},
        {"canonical_solution": "def similar_elements(one, other):\n    raise ValueError"},
        {"task_id": "Mbpp/two"},
    ],
)
def test_a_row_that_makes_no_sense_is_named(tools, change):
    with pytest.raises(UserError, match="mbpp_plus, row 1 "):
        MBPP_PLUS.convert([SHARED | change], tools)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_canonical_solutions_are_right_and_wrong_ones_are_not(tools, public_rows, wrongly_graded):
    # All 378 take five minutes: AZR_EVERY_ITEM=1 asks for them.
    rows = public_rows("MbppPlus.jsonl")
    assert len(rows) == MBPP_PLUS.size
    items = MBPP_PLUS.convert(rows[:: 1 if os.environ.get("AZR_EVERY_ITEM") else 6], tools)
    # 77 colours of 4 or 5 make millions of combinations: the original's own checker has no time for them either.
    assert {item.id for item in items if item.reference["left_out"]} <= {"Mbpp/255", "Mbpp/599", "Mbpp/630"}
    assert wrongly_graded(MBPP_PLUS, items) == ({}, {})
