"""A program of the buffer becomes a function that means the same, and complete programs define exactly what they should."""

import ast
import builtins
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.sandbox.executor import Limits, Request
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.records import read_jsonl
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.composite import as_function, complete, own_part, prelude, without
from azr_nemo.tasks.program import check
from azr_nemo.tasks.task import PromptOptions, Proposal, Refusal, TaskType

PATIENT = Limits(wall_s=60.0, cpu_s=30.0)
SEEDS = Path(__file__).parent.parent / "data" / "seeds.jsonl"
FACTORIAL = "def f(n):\n    return 1 if n < 2 else n * f(n - 1)"
CALLS_G_0 = "def f(x):\n    return g_0(x) + 1"


def namespace(program: str) -> dict:
    """What a program defines. Only programs that these tests wrote are run here; what a model wrote runs in the jail."""
    found: dict = {}
    exec(program, found)
    return {name: value for name, value in found.items() if name != "__builtins__"}


NAMES = st.lists(st.sampled_from(["helper", "Box", "LIMIT", "step", "table", "n"]), min_size=4, max_size=4, unique=True)


@st.composite
def programs(draw) -> str:
    """Programs that share their names: helpers, classes, constants, locals, imports and recursion, direct and through a helper."""
    helper, box, limit, local = draw(NAMES)
    number, start = draw(st.integers(-9, 9)), draw(st.integers(-9, 9))
    imports = draw(
        st.lists(st.sampled_from(["import math", "from collections import Counter", "from functools import reduce as fold"]), unique=True)
    )
    recursion = draw(st.sampled_from(["f(x - 1)", f"{helper}(x - 1, f)", "max(map(f, [x - 1, 0]))", "(lambda v: f(v))(x - 1)"]))
    return "\n".join([
        *imports,
        f"{limit} = {number}",
        f"class {box}:",
        "    size = 2",
        "    def __init__(self, v):",
        "        self.v = v",
        f"    def twice(self):\n        return self.v * self.size + {limit}",
        f"def {helper}(v, g=lambda w: w):",
        f"    return g(v) + {limit}",
        f"def f(x, {local}=1):",
        '    """The sum."""',
        "    if x < 1:",
        f"        return {start}",
        f"    total = {recursion} + {local}",
        f"    return total + {box}(x).twice() + sum({helper}(i) for i in range(3))",
    ])  # fmt: skip


@given(drawn=st.lists(programs(), min_size=1, max_size=3), inputs=st.lists(st.integers(-2, 6), min_size=3, max_size=3))
def test_each_function_means_what_its_program_meant_and_no_name_collides(drawn, inputs):
    functions: list[str] = []
    for number, program in enumerate(drawn):
        text = as_function(program, number, functions)
        assert isinstance(text, str)
        functions.append(text)
    defined = namespace(prelude(functions))
    whole = complete(functions, "def f(x, *more):\n    return [" + ", ".join(f"g_{i}(x, *more)" for i in range(len(drawn))) + "]")
    assert isinstance(whole, str)
    composite = namespace(whole)
    for value in inputs:
        expected = [namespace(program)["f"](value) for program in drawn]
        assert [defined[f"g_{i}"](value) for i in range(len(drawn))] == expected
        assert composite["f"](value) == expected
    imported = {"math", "Counter", "fold"}
    per_program = [set(namespace(text)) - imported for text in functions]
    assert all(len(names) == 4 and all(name.startswith(f"g_{i}") for name in names) for i, names in enumerate(per_program))
    assert set(composite) - imported == set().union(*per_program, {"f"})


@given(drawn=st.lists(programs(), min_size=1, max_size=3))
def test_a_complete_program_keeps_its_parts_apart(drawn):
    functions = [text for number, program in enumerate(drawn) if isinstance(text := as_function(program, number), str)]
    calls = " + ".join(f"mine(g_{i}(x))" for i in range(len(functions)))
    own = f"import math\nimport heapq\ndef mine(x):\n    return math.floor(x)\ndef f(x):\n    return {calls}"
    whole = complete(functions, own)
    assert isinstance(whole, str)
    assert check(whole) is None
    lines = whole.splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert len(imports) == len(set(imports))
    assert lines[: len(imports)] == imports
    assert [node.name for node in ast.parse(own_part(functions, whole)).body if isinstance(node, ast.FunctionDef)] == ["mine", "f"]
    # Each function can be taken away by itself, and f then fails.
    for number in range(len(functions)):
        with pytest.raises(BaseException, match=f"g_{number} is away"):
            namespace(without(functions, whole, number))["f"](3)
    assert isinstance(namespace(whole)["f"](3), int)


def test_a_function_that_calls_itself_still_does_beside_another_f():
    function = as_function(FACTORIAL, 0)
    whole = complete([function], "def f(n):\n    return -1 if n < 0 else g_0(n) + f(n - 1)")
    assert namespace(whole)["f"](4) == 24 + 6 + 2 + 1 + 1 - 1


def test_keywords_attributes_and_strings_that_look_like_a_name_stay():
    program = (
        "def step(x, *, f=2):\n    return x * f\n"
        "class Box:\n    def __init__(self):\n        self.step = {'f': 'step'}\n"
        "def f(x):\n    return step(x, f=3), Box().step"
    )
    # `f` is a parameter of step: its name is the caller's too, so this program cannot be renamed.
    assert as_function(program, 0).reason == "composite_name"
    program = program.replace("f=2", "k=2").replace("x * f", "x * k").replace("f=3", "k=3")
    assert namespace(as_function(program, 7))["g_7"](2) == (6, {"f": "step"})


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(x):\n    return x\nprint(f(1))", "composite_statement"),
        ("if True:\n    def f(x):\n        return x", "composite_statement"),
        ("a, b = 1, 2\ndef f(x):\n    return a + b + x", "composite_statement"),
        ("def f(x):\n    return x\nf.calls = 0", "composite_statement"),
        ("def helper(x):\n    return x\ndef f(x):\n    helper = 3\n    return helper", "composite_name"),
        ("def f(x):\n    return [f for f in x]", "composite_name"),
        ("class A:\n    def f(self):\n        return 1\ndef f(x):\n    return A().f()", "composite_name"),
        ("def max(x):\n    return 3\ndef f(x):\n    return max(x)", "composite_name"),
        ("from math import pow\ndef f(x):\n    return pow(x, 2)", "composite_name"),
        ("def __h(x):\n    return x\ndef f(x):\n    return __h(x)", "composite_name"),
        ("def f(x):\n    return f.__name__", "composite_name"),
        ("class Box:\n    def __init__(self):\n        self.__v = 3\ndef f(x):\n    return Box()._Box__v", "composite_name"),
        ("def g_0(x):\n    return x\ndef f(x):\n    return g_0(x)", "composite_name"),
        ("def f(x):\n    g_1 = f\n    return x", "composite_name"),
        ("import math\nmath = 3\ndef f(x):\n    return math", "composite_name"),
        ("import math\ndef h():\n    global math\n    import cmath as math\ndef f(x):\n    h()\n    return math.pi", "composite_name"),
        ("from math import *\ndef f(x):\n    return sqrt(x)", "composite_clash"),
        ("from __future__ import annotations\ndef f(x):\n    return x", "composite_clash"),
        ("def f(x:\n    return x", "syntax"),
    ],
)
def test_a_program_whose_names_cannot_safely_be_changed_is_no_function(program, reason):
    assert as_function(program, 0).reason == reason


def test_functions_whose_imports_disagree_do_not_stand_together():
    real = as_function("from math import sqrt\ndef f(x):\n    return sqrt(x)", 0)
    other = "from cmath import sqrt\ndef f(x):\n    return sqrt(x)"
    assert isinstance(as_function(other, 1), str)
    assert as_function(other, 1, [real]).reason == "composite_clash"
    assert isinstance(as_function("from math import sqrt\ndef f(x):\n    return -sqrt(x)", 1, [real]), str)
    assert isinstance(
        as_function("import collections.abc\ndef f(x):\n    return x", 1, [as_function("import collections\ndef f(x):\n    return 1", 0)]),
        str,
    )


SQUARE_ROOTS = ["from math import sqrt\n\ndef g_0_half(x):\n    return x / 2\n\ndef g_0(x):\n    return sqrt(max(x, 0))"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(x):\n    return x", "composite_uncalled"),
        ("def idle(x):\n    return g_0(x)\ndef f(x):\n    return x", "composite_uncalled"),
        ("def g_0(x):\n    return x\ndef f(x):\n    return g_0(x)", "composite_redefined"),
        ("g_0 = abs\ndef f(x):\n    return g_0(x)", "composite_redefined"),
        ("def f(x):\n    def g_0(y):\n        return y\n    return g_0(x)", "composite_redefined"),
        ("def f(g_0):\n    return g_0(1)", "composite_redefined"),
        ("def f(x):\n    return [g_0(1) for g_0 in x]", "composite_redefined"),
        ("from math import floor as g_0\ndef f(x):\n    return g_0(x)", "composite_redefined"),
        ("def f(x):\n    global g_0\n    g_0 = abs\n    return g_0(x)", "composite_redefined"),
        ("def f(x):\n    y = g_0(x)\n    del g_0\n    return y", "composite_redefined"),
        ("def g_0_half(x):\n    return x\ndef f(x):\n    return g_0(x)", "composite_redefined"),
        ("def sqrt(x):\n    return x\ndef f(x):\n    return g_0(x)", "composite_clash"),
        ("from cmath import sqrt\ndef f(x):\n    return g_0(sqrt(x))", "composite_clash"),
        ("def f(x):\n    from cmath import sqrt\n    return g_0(sqrt(x))", "composite_clash"),
        ("def max(x, y):\n    return x\ndef f(x):\n    return g_0(x)", "composite_clash"),
        ("def f(x):\n    global max\n    max = min\n    return g_0(x)", "composite_clash"),
        ("from math import *\ndef f(x):\n    return g_0(x)", "composite_clash"),
        ("import os\ndef f(x):\n    return g_0(x)", "import"),
        ("def f(x):\n    return g_0(x), '" + "z" * 7950 + "'", "too_long"),
    ],
)
def test_what_is_no_complete_program_says_why(program, reason):
    refusal = complete(SQUARE_ROOTS, program)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert refusal.detail


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n    return list(map(g_0, x))",
        "def f(x):\n    for y in x:\n        z = g_0(len(y))\n    return z",
        "def once(x):\n    return g_0(x)\ndef twice(x):\n    return once(once(x))\ndef f(x):\n    return twice(x)",
        "table = [g_0(i) for i in range(9)]\ndef f(x):\n    return table[x]",
        "class Root:\n    def of(self, x):\n        return g_0(x)\ndef f(x):\n    return Root().of(x)",
        "from math import sqrt, floor\ndef f(x):\n    return floor(g_0(x)) + sqrt(4)",
        "def f(x):\n    return (lambda *a: g_0(*a))(x)",
    ],
)
def test_every_way_to_use_a_function_counts_as_a_call(program):
    assert isinstance(complete(SQUARE_ROOTS, program), str)


@given(text=st.text(max_size=200))
def test_no_text_breaks_the_renaming(text):
    assert isinstance(as_function(text, 0), str | Refusal)
    assert isinstance(complete([as_function(FACTORIAL, 0)], text), str | Refusal)


@pytest.mark.parametrize("style", ["r1", "completion", "code", "chat"])
def test_a_proposal_for_given_functions_is_read_as_the_complete_program(style):
    function = as_function(FACTORIAL, 0)
    options = PromptOptions(style=style, functions=(function,))
    for kind in (KINDS[TaskType.DEDUCTION], KINDS[TaskType.ABDUCTION]):
        prompt = kind.propose_prompt([], options)
        assert prelude([function]) in prompt.text

        def read(program, kind=kind, prompt=prompt):
            return kind.parse_proposal(prompt.prefill + kind.proposal_text(Proposal(kind.type, program, ("4",)), options), [], options)

        assert read(CALLS_G_0) == Proposal(kind.type, complete([function], CALLS_G_0), ("4",))
        assert read("def f(x):\n    return x").reason == "composite_uncalled"
        if style != "code":  # which says no function but f
            assert read("def g(x):\n    return g_0(x)").reason == "no_entry"


def test_no_name_of_a_function_is_a_builtin():
    assert not {name for name in dir(builtins) if name.startswith("g_")}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_programs_give_the_same_outputs_as_functions_in_the_jail():
    records = [record for record in read_jsonl(SEEDS) if len(record.inputs) > 1]
    functions = [as_function(record.program, 0) for record in records]
    wholes = [complete([function], "def f(*arguments):\n    return g_0(*arguments)") for function in functions]
    with LocalPool(workers=1, limits=PATIENT) as pool:
        outcomes = pool.run(Request(whole, record.inputs, deterministic=True) for whole, record in zip(wholes, records, strict=True))
        idle = pool.run(
            Request(without([g], whole, 0), record.inputs[:1]) for g, whole, record in zip(functions, wholes, records, strict=True)
        )
    assert len(records) > 10
    assert [tuple(outcome.value for outcome in found) for found in outcomes] == [record.outputs for record in records]
    assert {found[0].status.value for found in idle} == {"error"}
