"""An argument text makes one call of f, with values and pure expressions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.sandbox.local.jailed.call import compile_call
from azr_nemo.sandbox.local.jailed.literal import Refused

PROGRAM = """
from collections import Counter
import os
from os import write
LIMIT = 3
HANDLES = [write]
DATA = {"a": [(1, {2})]}
class Point:
    def __init__(self, x):
        self.x = x
def double(x):
    return 2 * x
def f(*args, **kwargs):
    return (args, kwargs)
"""


@pytest.fixture
def namespace() -> dict:
    from types import ModuleType

    module = ModuleType("program")
    exec(PROGRAM, module.__dict__)  # noqa: S102 (text of this file)
    return module.__dict__


def called(text: str, namespace: dict) -> object:
    return eval(compile_call(text, namespace), namespace)  # noqa: S307 (text of this file)


def refusal(text: str, namespace: dict) -> str:
    with pytest.raises(Refused) as caught:
        compile_call(text, namespace)
    return caught.value.status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ((), {})),
        ("1, 'a'", ((1, "a"), {})),
        ("[1,\n2]", (([1, 2],), {})),
        ("1 # a comment", ((1,), {})),
        ("1, b=2", ((1,), {"b": 2})),
        ("*[1, 2], **{'c': 3}", ((1, 2), {"c": 3})),
        ("'ab'.upper() * 2", (("ABAB",), {})),
        ("[x * 2 for x in range(3) if x]", (([2, 4],), {})),
        ("sum(x for x in [1, 2])", ((3,), {})),
        ("dict(a=1), set(), -1.5e3, 1 + 2j", (({"a": 1}, set(), -1500.0, 1 + 2j), {})),
        ("double(double(2))", ((8,), {})),
        ("sorted([2, 1], key=lambda x: -x)", (([2, 1],), {})),
        ("f'{1 + 1}'", (("2",), {})),
        ("1 if 2 > 1 else 3", ((1,), {})),
        ("LIMIT, DATA['a'][:]", ((3, [(1, {2})]), {})),
        ("[LIMIT for LIMIT in [2]]", (([2],), {})),
        ("[[y for y in x] for x in [[1]]], [x for x, *y in [(1, 2)]]", (([[1]], [1]), {})),
        ("(lambda os, *write, LIMIT=2, **x: [os, write, LIMIT, x])(1)", (([1, (), 2, {}],), {})),
        ("[1, 2].pop(), {1: 2}.setdefault(3, 4)", ((2, 4), {})),
        ("[(lambda x: x.reverse())(x) for x in [[1]]]", (([None],), {})),
    ],
)
def test_values_and_pure_expressions_are_arguments(text, expected, namespace):
    assert called(text, namespace) == expected


def test_functions_and_classes_of_the_program_and_classes_of_values_may_be_used(namespace):
    ((point, counter), _) = called("Point(3), Counter('aab')", namespace)
    assert (point.x, counter["a"]) == (3, 2)


@pytest.mark.parametrize(
    "text",
    ["2) or (1", "1) + f(2", "1)(2", "1).real(", "1)\nf(2", "1);f(2", "1) if (1) else f(2", "(", "1)", "1 2", "a=1, a=2", "\0", "\ud800", ")" + "(" * 300]
    + ["1) == (1", "0)\n1 == (1", "x := 1) or (2", "lambda: (yield)", "return 1", "(" * 5000],
)  # fmt: skip
def test_whatever_is_not_exactly_one_call_is_a_syntax_outcome(text, namespace):
    assert refusal(text, namespace) in ("syntax", "forbidden")


@pytest.mark.parametrize(
    "text",
    [
        "print('True') or 1", "__import__('os').write(3, b'x')", "(x := 1)", "f.__code__", "setattr(f, '__code__', 1)", "getattr(f, 'x')",
        "().__class__.__base__.__subclasses__()", "(i for i in [1]).gi_frame.f_globals", "'{0.__globals__}'.format(f)", "exec('1')", "eval('1')",
        "globals()", "vars()", "open('/etc/passwd')", "os.write(3, b'')", "write(3, b'')", "HANDLES", "HANDLES[0](3, b'')",
        "type('A', (), {})", "breakpoint()", "input()",
        "__builtins__", "ｅval('1')", "lambda: (yield 1)", "[x.update for x in [f.__globals__]]",
        # bound in one place, the program's or a builtin in another
        "[0 for HANDLES in []], HANDLES", "[0 for exec in []], exec('1')", "(lambda globals: 1, globals())", "[y for y in HANDLES for HANDLES in []]",
        "(lambda eval=eval: 1)(1)", "[[0 for os in []], [x for x in os]]", "{vars: 1 for x in [1]}, [vars for vars in []]",
        # targets that are no names
        "[0 for Point.title in [1]]", "[0 for double(2)[0] in [1]]", "[0 for (x, *Point.title) in [(1, 2)]]", "[0 for x in [[1]] for x[0] in [2]]",
        # changes of what a function of the program may have handed out
        "double(1).append(1)", "[x.append(1) for x in [double(1)]]", "(lambda x: x.update(a=1))(Point(1))", "[1].pop(double(0))",
        "DATA.pop('a')", "[x.append(1) for x in DATA.values()]",
    ],
)  # fmt: skip
def test_an_argument_that_could_act_beyond_its_value_is_forbidden(text, namespace):
    assert refusal(text, namespace) == "forbidden"


def test_a_name_that_stands_for_nothing_is_left_to_fail_as_python_fails(namespace):
    with pytest.raises(NameError):
        called("nothing", namespace)


@given(st.text(max_size=60))
def test_any_text_is_either_one_call_or_refused(text):
    try:
        compile_call(text, {})
    except Refused as refused:
        assert refused.status in ("syntax", "forbidden")
