"""An input is the arguments of exactly one call, and cannot reach the program it is given to."""

import ast

import pytest

from azr_nemo.tasks.program import MAX_ARGUMENTS, canonical_input, parse_arguments
from azr_nemo.tasks.task import Refusal

INJECTIONS = [
    "2) or (1", "0)\n1 == (1", "1); f(2", "1) #", "1) + f(2", "1)(2", "1).real + (1", ")(", ") or f(1", "1)\n+(2", "1), f(2",
    "x := 1", "(x := 1)", "*[1]", "**{'x': 1}", "yield 1", "await x", "(yield)", "setattr(f, '__code__', 1)", "globals()", "X.append(1)",
    "__import__('os')", "__builtins__", "eval('1')", "exec('x = 1')", "open('x')", "vars()", "f.__code__", "'a'.__class__", "f'{f.x}'",
    "[].__class__.__base__", "getattr(f, '__globals__')", "getattr(f, '__setattr__')('__code__', 1) or 1", "math.__dict__", "math.pi.real",
    "type('L', (), {'__eq__': lambda s, o: True})()", "1 #\n) or (1", "1; 2", "import os", "x = 1; y = 2",
    "\ud800", "1\x00", "(" * 1500, "-" * 3000 + "1",
]  # fmt: skip
# U+FF08 and its like look like the ASCII character but are none; identifiers are folded by Python (NFKC) and must still be caught.
LOOK_ALIKES = [
    "2\uff09 or \uff081",
    "1\uff0c 2",
    "\u0261lobals()\uff09 or (1",
    "\uff47lobals()",
    "\uff53etattr(f, 'a', 1)",
    "\u201ca\u201d",
]


@pytest.mark.parametrize("text", INJECTIONS + LOOK_ALIKES, ids=range(len(INJECTIONS + LOOK_ALIKES)))
def test_what_is_not_one_call_is_refused(text):
    assert isinstance(parse_arguments(text), Refusal)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "no_arguments"), ("  ", "no_arguments"), ("# 1", "no_arguments"), ("1" * (MAX_ARGUMENTS + 1), "too_long")]
)
def test_an_empty_or_endless_input_is_refused(text, reason):
    assert parse_arguments(text).reason == reason


@pytest.mark.parametrize(
    "text",
    [
        "1, 2", "x=1", "[i for i in range(3)]", "'a,b'", "{'a': (1,)}", "dict(a=1)", "math.pi", "1,", "1,\n2", "1  # one", "-1.5e3, 1 + 2j",
        "'(', ')'", "'2) or (1'", "lambda x: x + 1", "'-'.join(['a', 'b'])", "sorted([2, 1], key=lambda x: -x)", "None, True, b'a', {1}",
        "1 if 2 > 1 else 3", "[1, 2][::-1]", "helper(1)", "fractions.Fraction(1, 2)",
    ],
)  # fmt: skip
def test_honest_arguments_are_one_call(text):
    call = parse_arguments(text)
    assert isinstance(call, ast.Call)
    assert call.func.id == "f"


def test_a_number_too_long_to_write_has_a_normal_form_too():
    text = "0x" + "f" * 3900
    assert canonical_input(f" {text} ") == text
