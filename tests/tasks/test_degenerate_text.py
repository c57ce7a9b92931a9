"""What a model repeats without end, or names like a builtin, neither stops a step nor slips through."""

import ast
import sys

import process_trees
import pytest

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.induction import leaks
from azr_nemo.tasks.program import MAX_DEPTH, canonical_input, check, normalise, parse_arguments
from azr_nemo.tasks.task import Calls, PromptOptions, Refusal, Task, TaskType, Verdict

NESTED = {
    "sum": lambda n: "1 + " * n + "1",
    "not": lambda n: "not " * n + "1",
    "power": lambda n: "2 ** " * n + "1",
    "or": lambda n: "(1 or " * n + "1" + ")" * n,
    "choice": lambda n: "1 if 1 else " * n + "1",
    "list": lambda n: "[" * n + "]" * n,
    "dict": lambda n: "{1: " * n + "1" + "}" * n,
    "call": lambda n: "g(a=" * n + "1" + ")" * n,
    "lambda": lambda n: "lambda: " * n + "1",
    "item": lambda n: "'a'" + "[0]" * n,
    "comprehension": lambda n: "{x: x for x in " * n + "y" + "}" * n,
}


@pytest.mark.parametrize("nested", NESTED.values(), ids=NESTED)
def test_a_deep_input_is_refused_and_any_other_has_a_normal_form(nested):
    verdicts = []
    for depth in [*range(1, 2 * MAX_DEPTH, 3), 10 * MAX_DEPTH]:
        call = parse_arguments(nested(depth))
        verdicts.append(isinstance(call, Refusal))
        if isinstance(call, ast.Call):
            assert ast.dump(parse_arguments(canonical_input(nested(depth)))) == ast.dump(call)
        else:
            assert canonical_input(nested(depth)) == nested(depth)
    assert verdicts == sorted(verdicts)
    assert (verdicts[0], verdicts[-1]) == (False, True)


def test_a_deep_induction_input_is_a_refusal():
    task = Task(TaskType.INDUCTION, "def f(x):\n    return x", ("1", "2"), ("1", "2"))
    response = fence("input", "1") + fence("input", NESTED["sum"](600))
    refusal = KINDS[TaskType.INDUCTION].parse_proposal(response, [task], PromptOptions("completion", pairs=2))
    assert refusal.reason == "too_deep"


@pytest.mark.parametrize("nested", NESTED.values(), ids=NESTED)
def test_a_deep_program_is_refused_and_any_other_has_a_normal_form(nested):
    assert check(f"def f(x):\n    return {nested(10 * MAX_DEPTH)}"[:8000]) is not None
    program = f"def f(x):\n    return {nested(MAX_DEPTH // 3)}"
    assert check(program) is None
    assert ast.dump(ast.parse(normalise(program))) == ast.dump(ast.parse(program))


@pytest.mark.parametrize(
    "program",
    [
        "def f(input):\n    return input[0]",
        "def f(x):\n    return [id for id in x]",
        "def f(x):\n    def compile(y):\n        return y\n    return compile(x)",
        "open = '('\ndef f(x):\n    return x == open",
        "from math import dist as hash\ndef f(x):\n    return hash(x, x)",
        "def f(x):\n    def g():\n        return vars\n    vars = x\n    return g()",
    ],
)
def test_a_name_that_the_program_binds_itself_is_no_builtin(program):
    assert check(program) is None


@pytest.mark.parametrize(
    "program",
    [
        "def g(input):\n    return input\ndef f(x):\n    return g(input())",
        "class A:\n    open = 1\n    def m(self):\n        return open('x')\ndef f(x):\n    return A().m()",
        "def f(x):\n    return [eval(y) for y in x]",
        "def f(x):\n    return \uff45val(x)",
    ],
)
def test_a_builtin_is_banned_where_another_scope_binds_its_name(program):
    assert check(program).reason == "banned_name"


ONE_LINE = "def f(x):\n    return sorted(x, key=str)[::-1]"
TWO_LINES = 'def f(s):\n    t = s.replace("a", "b")\n    return t.upper() + s'


@pytest.mark.parametrize(
    ("message", "program"),
    [
        ("return sorted(x, key=str)[::-1]", ONE_LINE),
        ("It gives sorted( x,key = str )[ ::-1 ].", ONE_LINE),
        ("def  f (x): ...", ONE_LINE),
        ("t=s.replace('a','b') and then t.upper()+s", TWO_LINES),
        ("```python\nt = s.replace('a', 'b')\nreturn t.upper() + s\n```", TWO_LINES),
    ],
)
def test_spaces_and_quotes_do_not_hide_a_program_in_a_message(message, program):
    assert leaks(message, program)


@pytest.mark.parametrize(
    ("message", "program"),
    [
        ("Sort by text, then turn it around; x is a list.", ONE_LINE),
        ("It makes use of t = s.replace('a', 'b').", TWO_LINES),
        ("Write a function that can return a list.", "def f(a):\n    return a"),
        ("", ONE_LINE),
    ],
)
def test_a_hint_is_no_program(message, program):
    assert not leaks(message, program)


def test_an_answer_may_import_what_a_proposal_may():
    kind, task = KINDS[TaskType.INDUCTION], Task(TaskType.INDUCTION, "def f(x):\n    return x", ("1", "2"), ("1", "2"))
    answer = "import random\ndef f(x):\n    return x"
    assert kind.verification(task, answer) == Verdict(0.0, "import")
    assert kind.verification(task, answer, ("random",)) == Calls(answer, ("2",))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older Pythons say nothing of odd escapes by default")
def test_an_odd_escape_in_a_text_prints_no_warning():
    script = r"""
from azr_nemo.tasks.parsing import same_literal
from azr_nemo.tasks.program import check, parse_arguments
check("def f(x):\n    return '\\d'"), parse_arguments("'\\d'"), same_literal("'\\d'", "'\\\\d'")
"""
    ran = process_trees.run([sys.executable, "-c", script], timeout=120, check=True)
    assert ran.stderr == ""
