"""An answer to an abduction task is an input, written out as a value; a program that finds one is refused, whatever its form."""

import json
from pathlib import Path

import pytest

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.task import Calls, PromptOptions, Refusal, Task, TaskType, Verdict
from azr_nemo.tasks.values import IMPORTED, value_arguments

SHARED = Path(__file__).parents[3] / "shared"
PROGRAM = """
from collections import Counter
def square(x):
    return x * x
class Found:
    def __new__(cls, y):
        return next(i for i in range(5000) if f(i) == y)
def set(y):
    return Found(y)
def f(x):
    return (square(x) + 3 * x) % 1009
"""
TASK = Task(TaskType.ABDUCTION, PROGRAM, ("17",), ("340",))
BODY = "(i * i + 3 * i) % 1009"
SEARCHES = [
    "next(i for i in range(5000) if f(i) == 340)",
    "[i for i in range(5000) if f(i) == 340][0]",
    "min(range(5000), key=lambda i: f(i) != 340)",
    "max(range(5000), key=lambda i: f(i) == 340)",
    "sorted(range(5000), key=lambda i: abs(f(i) - 340))[0]",
    "sorted(range(5000), key=f)",
    "list(map(f, range(5000))).index(340)",
    "{f(i): i for i in range(5000)}[340]",
    "dict(zip(map(f, range(5000)), range(5000)))[340]",
    "list(filter(lambda i: f(i) == 340, range(5000)))[0]",
    "next(filter(lambda i: f(i) == 340, range(5000)))",
    f"next(i for i in range(5000) if {BODY} == 340)",
    f"[{BODY} for i in range(5000)].index(340)",
    f"sum(i * ({BODY} == 340) for i in range(50))",
    f"max(({BODY} == 340) * i for i in range(50))",
    "next(i for i in range(5000) if (square(i) + 3 * i) % 1009 == 340)",
    "[i for i in range(99) if (lambda x: (x * x + 3 * x) % 1009)(i) == 340].pop()",
    "(lambda g: next(i for i in range(5000) if g(i) == 340))(f)",
    "(lambda g, n: g(g, n))(lambda g, n: n if f(n) == 340 else g(g, n + 1), 0)",
    "(lambda: 17)()",
    "int(''.join(str(i) for i in range(5000) if f(i) == 340))",
    f"int(''.join([str(i) * (0 ** abs({BODY} - 340)) for i in range(50)]))",
    f"[i * 0 ** abs({BODY} - 340) for i in range(50)]",
    "1 if f(1) == 340 else 2 if f(2) == 340 else 17",
    "f(1) == 340 and 1 or f(17) == 340 and 17",
    "1 if (1 * 1 + 3 * 1) % 1009 == 340 else 17",
    " + ".join(f"{i} * 0 ** abs(({i} * {i} + 3 * {i}) % 1009 - 340)" for i in range(18)),
    "f(17)", "f(f(17))", "square(4)", "Found(340)", "set(340)", "x=Found(340)", "*[i for i in range(50) if f(i) == 340]",
    "**{'x': next(i for i in range(50) if f(i) == 340)}", "x=next(i for i in range(50) if f(i) == 340)",
    "[17, f][0]", "[17][f(17) != 340]", "{340: 17}[f(17)]", "(i for i in range(50))", "[i for i in range(17)]", "[f for _ in range(3)]",
    "(n := 17)", "'17'[0]", "len('a' * 17)", "'abc'.index('c')", "17 if True else 1", "not 0", "17 or 1", "3 < 4", "f'{f(1)}'", "f", "nothing[:]",
    "any([1])", "list(iter(lambda: f(1), 4))", "__import__('os')", "(17).real", "[].append(1)", "int.__add__(1, 2)", "math.pi",
    "[1 for _ in [f(1)]]", "[1 for _ in range(f(1))]", "[0 for x in range(3) for y in range(3)]", "[0 for _ in range(3) if f(3)]",
    "lambda x: f(x)", "lambda x: next(iter(x))", "lambda x: [i for i in x]", "lambda x=f(1): x", "lambda x: (lambda y: y)(x)",
    "lambda x: min(range(50), key=x)", "lambda x: x(1)", "lambda x: x.__class__", "lambda x: max(range(50), *x)", "lambda f: square(2)",
    "list(range(5)) & {1}", "'%d' % 17", "'{}'.format(17)", "sorted([2, 1], key=lambda x: x)", "Counter(a=f(1))",
]  # fmt: skip


@pytest.mark.parametrize("answer", SEARCHES, ids=range(len(SEARCHES)))
def test_an_answer_that_searches_or_computes_is_refused_before_anything_runs(answer):
    verdict = KINDS[TaskType.ABDUCTION].verification(TASK, answer)
    assert isinstance(verdict, Verdict)
    assert (verdict.score, verdict.reason) == (0, "not_a_value")


HONEST = [
    "17", "x=17", "-17", "1_000, 0x11, -1.5e3, 1 + 2j, -1 - 2j", "'a,b', b'c', None, True, ...", "[1, (2,), {'a': [3]}, {4}]", "[], {}, ()",
    "list([1]), frozenset([1]), dict(a=1), dict()", "float('inf')", "-float('inf')", "2 ** 31 - 1", "1 << 10", "5 - 4 + 9 / 2 * 7", "~1",
    "'a' * 50", "50 * 'a'", "' ' * 256 + 'a'", "[''] * 1000", "[1] + [2] * 3", "list(range(1, 6)), tuple(range(3))", "(1, 2) * 2",
    "list(range(3)) + [7]", "['string' for _ in range(100)]", "[[0 for _ in range(3)] for _ in range(3)]", "''.join(['A'] * 20)",
    "'$78'.upper(), '$'", "'a-b'.split('-')", "b'a'.decode()", "bytes.fromhex('ff'), bytearray(b'a')", "dict.fromkeys('ab', 0)",
    "list(zip('ab', [1, 2]))", "sorted([3, 1])", "iter([1])", "chr(97) * 3", "Counter('aab'), Counter(a=1)", "'a' 'b'", "'''\n'''", "1  # one",
    "[6, 4, 2], (lambda x: x.reverse())", "[0, 3], lambda x: x < 2", "lambda: 1", "lambda x, *y, z=1, **k: [x, y[0], z, k]",
    "lambda x: lambda y: x + y", "lambda x: sum(x) if len(x) > 2 else -x[0]", "lambda s: s.upper() + str(1)", "{'keep': lambda x: x * 2}",
    "[lambda a, b: max(a, b)]", "lambda x: not x and {x: [x], **{}} if False else x",
]  # fmt: skip


@pytest.mark.parametrize("answer", HONEST, ids=range(len(HONEST)))
def test_a_value_that_is_written_out_is_an_answer(answer):
    honest = "from collections import Counter\ndef f(*x):\n    list = x\n    return list"
    if "**{}" in answer:
        assert value_arguments(answer, honest).reason == "not_a_value"
    else:
        assert not isinstance(value_arguments(answer, honest), Refusal)
        task = Task(TaskType.ABDUCTION, honest, ("0",), ("0",))
        assert KINDS[TaskType.ABDUCTION].verification(task, answer) == Calls(honest, (answer,))


@pytest.mark.parametrize(
    "program",
    [
        "def list(x): return 17", "class list: pass", "list = int", "import search as list", "from search import list", "for list in [int]: pass",
        "def g():\n    global list\n    list = int", "with g() as list: pass", "try:\n    pass\nexcept E as list:\n    pass", "(list := int)",
    ],
)  # fmt: skip
def test_a_builtin_that_the_program_redefines_makes_no_value(program):
    assert value_arguments("list([1])", f"{program}\ndef f(x):\n    return x").reason == "not_a_value"
    assert not isinstance(value_arguments("list([1])", "def f(list):\n    for int in list:\n        list = int\n    return list"), Refusal)


@pytest.mark.parametrize("name", sorted(IMPORTED))
def test_a_class_of_values_is_the_one_of_its_module(name):
    own = f"from {IMPORTED[name]} import {name}\n"
    assert not isinstance(value_arguments(f"{name}(1)", own), Refusal)
    for change in (
        f"{name}.__init__ = g",
        f"{name}.x, y = 1, 2",
        f"type.__setattr__({name}, 'x', 1)",
        f"def {name}(x): pass",
        f"{name} = int",
    ):
        assert value_arguments(f"{name}(1)", own + change).reason == "not_a_value"
    assert value_arguments(f"{name}(1)", f"from search import {name}").reason == "not_a_value"
    assert value_arguments(f"{name}(1)", f"from {IMPORTED[name]} import other as {name}").reason == "not_a_value"


def test_many_values_are_no_search_but_many_operators_may_be():
    assert not isinstance(value_arguments(str([[i, -i, complex(i, i)] for i in range(99)]), "def f(x): return x"), Refusal)
    assert value_arguments("+".join(["1"] * 14), "def f(x): return x").reason == "not_a_value"
    assert value_arguments("''" + ".strip()" * 13, "def f(x): return x").reason == "not_a_value"


@pytest.mark.parametrize("kind", list(TaskType))
def test_a_proposed_input_is_a_value_too(kind):
    """Else a proposer could hand the solver a search as the task's own input; and an induction's input must mean the same for every program."""
    body = "" if kind is TaskType.INDUCTION else fence("python", "def f(x):\n    return x % 7")
    searches = [f"next(i for i in range(5000) if f(i) == {k})" for k in range(2)]
    refused = KINDS[kind].parse_proposal(
        body + "".join(fence("input", text) for text in searches), [TASK], PromptOptions("completion", pairs=2)
    )
    assert refused.reason == "not_a_value"


def test_a_seed_s_own_input_stays_its_right_answer():
    task = Task(TaskType.ABDUCTION, "def f(x):\n    return x", ("f(3) + f( 33)",), ("36",))
    assert KINDS[TaskType.ABDUCTION].verification(task, "f(3)+f(33)") == Calls(task.program, ("f(3)+f(33)",))
    assert KINDS[TaskType.ABDUCTION].verification(task, "f(2) + f(34)").reason == "not_a_value"


@pytest.mark.skipif(not (SHARED / "cases" / "grade_search.jsonl").is_file(), reason="no shared cases")
def test_the_collected_searches_are_refused():
    rows = [json.loads(line) for line in (SHARED / "cases" / "grade_search.jsonl").read_text(encoding="utf-8").split("\n") if line]
    for row in rows:
        task = Task(TaskType(row["task_type"]), row["program"], (row["input"],), (row["output"],))
        assert KINDS[task.type].verification(task, row["answer"]) == Verdict(0.0, "not_a_value")
    assert rows


SEEDS = ("7b_coder_seed_io", "llama_64_seed_io", "7b_coder_code_f_seed_io", "llama_64_code_f_seed_io", "cruxeval_200")


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no shared data")
@pytest.mark.parametrize("name", SEEDS)
def test_inputs_that_people_and_models_wrote_are_accepted_as_answers(name):
    accepted = 0
    for line in (SHARED / "data" / f"{name}.jsonl").read_text(encoding="utf-8").split("\n"):
        row = json.loads(line or "{}")
        for text in row.get("inputs", [row["input"]] if "input" in row else []):
            task = Task(TaskType.ABDUCTION, row.get("snippet", row.get("code")), (text,), ("0",))
            found = KINDS[TaskType.ABDUCTION].verification(task, text)
            assert isinstance(found, Calls) or found.reason == "no_arguments"
            values = value_arguments(text, task.program)
            assert not isinstance(values, Refusal) or values.reason == "no_arguments" or "f(" in text
            accepted += isinstance(found, Calls)
    assert accepted > 50
