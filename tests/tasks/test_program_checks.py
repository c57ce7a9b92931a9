"""What makes a program, and when two programs are one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.tasks.program import BANNED, MAX_PROGRAM, body_lines, canonical_input, check, normalise, program_hash, strip, with_entry


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(x):\n  return", "no_return"),
        ("def f(x):\n  pass", "no_return"),
        ("def f(x):\n  def g():\n    return 1\n  g()", "no_return"),
        ("def f(x):\n  yield x\n  return x", "generator"),
        ("def f():\n  return 1", "no_parameter"),
        ("def g(x):\n  return x", "no_entry"),
        ("f = lambda x: x", "no_entry"),
        ("async def f(x):\n  return x", "no_entry"),
        ("class A:\n  def f(self, x):\n    return x", "no_entry"),
        ("def f(x) return x", "syntax"),
        ("def f(x):\n  return x\x00", "syntax"),
        ("import os\ndef f(x):\n  return x", "import"),
        ("def f(x):\n  import os.path as path\n  return x", "import"),
        ("from . import math\ndef f(x):\n  return x", "import"),
        ("from random import random\ndef f(x):\n  return x", "import"),
        ("def f(x):\n  return eval(x)", "banned_name"),
        ("def f(x):\n  return x.__class__.__subclasses__()", "banned_name"),
        ("def f(x):\n  return x" + " " * MAX_PROGRAM, "too_long"),
    ],
)
def test_a_text_that_is_no_program_is_refused_with_a_reason(program, reason):
    assert check(program).reason == reason


@pytest.mark.parametrize("name", sorted(BANNED))
def test_each_banned_name_is_refused(name):
    assert check(f"def f(x):\n    return {name}").reason == "banned_name"


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n  return x",
        "def f(*args):\n  return args",
        "def f(**kw):\n  return kw",
        "def f(x, /):\n  return x",
        "def f(*, x):\n  return x",
        "import math\nfrom collections import Counter\ndef f(x):\n  return Counter(x)",
        "import collections.abc\ndef f(x):\n  return x",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\n\ndef g(x):\n  yield x\n\ndef f(x):\n  return list(g(x))",
        "def f(x):\n  def g(y):\n    return y + 1\n  if x:\n    return g(x)",
        "def f():\n  return 1\ndef f(x):\n  return x",
    ],
)
def test_helpers_classes_and_known_imports_are_welcome(program):
    assert check(program) is None


def test_the_allowed_imports_replace_the_default_ones():
    assert check("import random\ndef f(x):\n  return x", ["random"]) is None
    assert check("import math\ndef f(x):\n  return x", ["random"]).reason == "import"


PLAIN = "def f(x):\n    y = x + 1\n    return y"


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):\n  y = x+1 # one more\n\n  return (y)",
        '"""Adds one."""\ndef f(x):\n    """Adds one."""\n    y = x + 1\n    return y\n',
        "# a comment\n\n\n" + PLAIN,
    ],
)
def test_comments_docstrings_and_layout_do_not_make_another_program(other):
    assert program_hash(other) == program_hash(PLAIN)


@pytest.mark.parametrize("other", [PLAIN.replace("1", "2"), PLAIN.replace("y", "z"), "import math\n" + PLAIN])
def test_another_constant_name_or_import_makes_another_program(other):
    assert program_hash(other) != program_hash(PLAIN)


def test_inputs_that_differ_by_spaces_are_one():
    assert canonical_input("1,2") == canonical_input(" 1,  2 ") == "1, 2"
    assert canonical_input("x=1") != canonical_input("1")
    assert canonical_input("{2, 1, 2}, {'b': {'d', 'c'}, 'a': 1}") == "{1, 2}, {'b': {'c', 'd'}, 'a': 1}"
    assert canonical_input("{'a': 1, 'b': 2}") != canonical_input("{'b': 2, 'a': 1}")
    assert canonical_input(" ) ( ") == ") ("


def test_the_length_of_a_program_leaves_out_imports_and_the_first_line():
    assert body_lines("import math\n\n# why\n" + PLAIN) == 2
    assert body_lines("no program at all (") == 1


def test_the_last_function_becomes_the_entry_where_there_is_none():
    program = "def g(x):\n    return x + 1\n\ndef solve(n):\n    return 0 if n <= 0 else g(n) + solve(n - 1)"
    assert with_entry(program) == program.replace("solve", "f")
    assert with_entry("def f(x):\n    return x\ndef g(x):\n    return x") == "def f(x):\n    return x\ndef g(x):\n    return x"


@pytest.mark.parametrize(
    "program",
    [
        "x = 1",
        "no program (",
        "class A:\n    def g(self, x):\n        return x",
        "def g(g):\n    return g",  # a parameter of the same name
        "class A:\n    def g(self):\n        return 1\ndef g(x):\n    return A().g() + x",
        "import g\ndef g(x):\n    return x",
        "def h(x):\n    global g\n    g = x\ndef g(x):\n    return x",
        "def g(f):\n    return f(1)",  # the new name is taken
        "f = 3\ndef g(x):\n    return f + x",
    ],
)
def test_a_name_that_cannot_be_changed_safely_stays(program):
    assert with_entry(program) == program


def test_strip_takes_out_only_what_is_asked_for():
    program = "import math\nK = 1\ndef f(x):\n    'doc'\n    print(x)  # why\n    return x"
    assert strip(program) == program
    assert strip(program, comments=True) == "import math\nK = 1\n\ndef f(x):\n    print(x)\n    return x"
    assert "K = 1" not in strip(program, globals=True)
    assert "print" not in strip(program, prints=True)
    assert strip("def f(x):\n    print(x)", prints=True) == "def f(x):\n    pass"
    assert strip("no program (", comments=True) == "no program ("


PATHOLOGICAL = [
    "(" * 3000, "-" * 7000 + "1", "x=" + "+".join("1" * 3000), "\x00", "\ud800", "def f(x): return 'a\ud800'", "\ufeffdef f(x): return 1",
    "def f(x): return " + "[" * 190 + "]" * 190, "def f(x): return " + "1" * 5000, "def f(x): return x" + ".a" * 2500,
    "def f(x): return " + "not " * 1900 + "x", "def f(x):\n" + "".join(" " * i + "if x:\n" for i in range(1, 101)) + " " * 101 + "return 1",
]  # fmt: skip


@pytest.mark.parametrize("program", PATHOLOGICAL, ids=range(len(PATHOLOGICAL)))
def test_pathological_sources_never_raise(program):
    check(program)
    normalise(program)
    program_hash(program)
    body_lines(program)
    strip(program, comments=True, globals=True, prints=True)
    canonical_input(program)


@given(st.text())
def test_no_text_raises(text):
    check(text)
    program_hash(text)
    canonical_input(text)


@given(st.sampled_from([PLAIN, "def f(x):\n    'doc'\n    return [i for i in x]", "class A:\n    pass\ndef f(x):\n    return A"]))
def test_the_normal_form_is_its_own_normal_form(program):
    assert normalise(normalise(program)) == normalise(program)
