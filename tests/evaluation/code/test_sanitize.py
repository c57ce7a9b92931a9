"""A response is taken for the program that defines the problem's function: nothing else that it says is run."""

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.code.code_blocks import parses, stated
from azr_nemo.evaluation.code.sanitize import sanitized

PROMPT = 'from typing import List\n\n\ndef double(x: int) -> int:\n    """Doubles.\n\n    >>> double(2)\n    4\n    """\n'
SOLUTION = "def double(x):\n    return 2 * x"
HARM = "raise RuntimeError('this must not be run')"


def run(response: str) -> int:
    """What the sanitized program says of 3: the texts are ours."""
    namespace: dict = {"__name__": "program"}
    limit = sys.getrecursionlimit()
    try:
        exec(compile(sanitized(response, PROMPT, "double"), "<test>", "exec", dont_inherit=True), namespace)
        return namespace["double"](3)
    finally:
        sys.setrecursionlimit(limit)


def fenced(*blocks: str) -> str:
    return "<think> so </think>\n<answer>\n" + "\n\nand then\n\n".join(f"```python\n{block}\n```" for block in blocks) + "\n</answer>"


AFTER = {
    "usage that fails": f"assert double(2) == 5, {HARM!r}",
    "usage in a block that imports it": "from solution import double\nprint(double(2))",
    "tests": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(double(1), 3)\nunittest.main()",
    "pytest": "import pytest\n@pytest.mark.parametrize('x', [1])\ndef test_double(x):\n    assert double(x) == 3",
    "reading input": "n = int(input())\nprint(double(n))",
    "a loop over cases": f"for x, want in [(1, 3)]:\n    if double(x) != want:\n        {HARM}",
    "a signature": "def double(x):\n    '''Doubles.'''\n    ...",
    "a call of its method": "double.cache_clear()\ndouble = double(2)",
    "text": "Input: 2\nOutput: 4",
    "an unfinished line": "print(double(",
}


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
def test_what_follows_the_solution_does_not_count_in_a_block_of_its_own_or_in_the_same(after):
    assert run(fenced(SOLUTION, after)) == 6
    if after not in (AFTER["a signature"], AFTER["a call of its method"]):  # there Python itself would take the later meaning
        assert run(fenced(f"{SOLUTION}\n\n{after}")) == 6
        assert run(f"{SOLUTION}\n\n{after}") == 6
        assert run(f"    return 2 * x\n\n{after}") == 6


@pytest.mark.parametrize(
    "response",
    [
        fenced("def helper(x):\n    return x + x", "def double(x):\n    return helper(x)"),
        fenced("def double(x):\n    return helper(x)", "def helper(x):\n    return x + x", f"def other():\n    pass\n{HARM}"),
        fenced("def double(x):\n    return x", SOLUTION),
        fenced("table = [0] * 9\nfor i in range(9):\n    table[i] = 2 * i\ndef double(x):\n    return table[x]"),
        fenced("seen = {}\nseen.update({3: 6})\ndef double(x):\n    return seen[x]"),
        fenced("try:\n    import no_such_module\nexcept ImportError:\n    two = 2\ndef double(x):\n    return two * x"),
        fenced("import no_such_module\nfrom math import *\n" + SOLUTION),
        fenced("from functools import cache\n@cache\ndef double(x):\n    return 0 if x == 0 else 2 + double(x - 1)"),
        fenced("if True:\n    double = lambda x: 2 * x"),
        fenced("class Doubler:\n    def of(self, x):\n        return 2 * x\ndouble = Doubler().of"),
        fenced("import sys\nsys.setrecursionlimit(12345)\ndef double(x):\n    return 2 * x if sys.getrecursionlimit() == 12345 else 0"),
        fenced("'''Doubles.'''\nfrom __future__ import annotations\ndef double(x: Unheard) -> Of:\n    return 2 * x"),
        fenced("def helper(x: Of):\n    return x", "from __future__ import annotations\ndef double(x: Of):\n    return 2 * helper(x)"),
        fenced("text = '''\nnot code (\n'''\ndef double(x):\n# doubles\n    return len(text) // 6 * 0 + (\n2 * x\n)"),
        f"Here's the function:\n\n{SOLUTION}\n\nIt's simple (as you see: it doubles.\nHope this helps!",
        f"Here's the function:\n\nimport math\n{SOLUTION}\n\nif you want:\nprint(double(2))",
        "    return 2 * x",
        "return 2 * x",
        "y = x\n    return 2 * y",
        "  y = x\n  return 2 * y",
        "```python\n    return 2 * x\n```\nOutput:\n```\n4\n```",
        "```\nreturn 2 * x\n```",
        "<answer>\n```python\n" + SOLUTION + "\n```\n</answer> I hope the <answer> helps <answer></answer>",
        fenced(SOLUTION).replace("\n", "\r\n"),
    ],
)
def test_a_right_solution_is_found_in_any_of_these(response):
    assert run(response) == 6


def test_what_the_function_does_not_need_is_not_in_the_program():
    code = sanitized(fenced(f"import os\nimport math\nunused = 1\n{SOLUTION}\n{HARM}"), PROMPT, "double")
    assert code == SOLUTION + "\n"


def test_a_method_or_a_function_of_another_name_is_not_the_entry_point():
    for code in ("class Solution:\n    def double(self, x):\n        return 2 * x", "def twice(x):\n    return 2 * x"):
        assert run_or_none(fenced(code)) is None


def run_or_none(response: str) -> int | None:
    return run(response) if parses(sanitized(response, PROMPT, "double")) else None


@given(st.text() | st.text().map(stated) | st.text(alphabet="`<answer>/ python\n'\"()d:=@#").map("<answer>".__add__))
def test_any_text_gives_a_text(response):
    assert isinstance(sanitized(response, PROMPT, "double"), str)


@pytest.mark.parametrize(
    "part",
    [
        "(see\n",
        "'''\n",
        "if x:\n",
        "```\n",
        pytest.param("x = (\n", marks=pytest.mark.slow),
        "@a\n",
        "prose it is\n",
        "def double(x):\n",
        "<answer>",
        "</answer>",
    ],
)
def test_long_text_is_read_in_bounded_time(part):
    start = time.process_time()
    sanitized(part * 4000, PROMPT, "double")
    assert time.process_time() - start < 10
