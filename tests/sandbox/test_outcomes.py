"""Each way a call can end has its status, and one input's end does not touch the next."""

import ast
import time

import pytest

from azr_nemo.sandbox.executor import Limits, Outcome, Request, Status

SHORT = Limits(wall_s=1.0, cpu_s=1.0)
SMALL = Limits(wall_s=20.0, cpu_s=20.0, memory_mb=64)


def one(pool, program: str, argument: str = "1", limits: Limits = Limits(20.0, 20.0), deterministic: bool = False) -> Outcome:
    (outcome,) = pool.submit(Request(program, (argument,), limits, deterministic)).result()
    return outcome


def statuses(pool, program: str, inputs: tuple[str, ...], limits: Limits = SHORT, deterministic: bool = False) -> list[str]:
    return [str(outcome.status) for outcome in pool.submit(Request(program, inputs, limits, deterministic)).result()]


CASES = [
    ("ok", "def f(x):\n    return x + 1"),
    ("ok", "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: 'int'\ndef f(x):\n    return P(x).x"),
    ("ok", "def f(x):\n    print('x' * 10**6)\n    return x"),
    ("ok", "import codecs\ndef f(x):\n    return codecs.encode('ab', 'rot13')"),
    ("ok", "def f(x):\n    return x\nif __name__ == '__main__':\n    1 / 0"),
    ("error", "def f(x):\n    return 1 / 0"),
    ("error", "def f(x):\n    raise PermissionError('made up')"),
    ("error", "def f(x):\n    return input()"),
    ("error", "import sys\ndef f(x):\n    sys.exit(0)"),
    ("error", "def f(x):\n    raise KeyboardInterrupt"),
    ("error", "def g(x):\n    return x"),
    ("error", "import nothing_of_that_name\ndef f(x):\n    return x"),
    ("error", "def f(x):\n    return f(x + 1)"),
    ("timeout", "def f(x):\n    while True:\n        pass"),
    ("timeout", "import time\ndef f(x):\n    time.sleep(60)"),
    ("timeout", "while True:\n    pass"),
    ("memory", "def f(x):\n    return len([0] * 10**10)"),
    ("memory", "def f(x):\n    a = []\n    while True:\n        a.append('x' * 10**6 + str(len(a)))"),
    ("output_too_large", "def f(x):\n    return 'x' * 8001"),
    ("output_too_large", "def f(x):\n    return 10 ** 100_000"),
    ("not_literal", "def f(x):\n    return object()"),
    ("not_literal", "def f(x):\n    return float('nan')"),
    ("not_literal", "async def f(x):\n    return x"),
    ("not_literal", "def f(x):\n    yield x"),
    ("syntax", "def f(x:\n    return x"),
    ("syntax", "def f(x):\n    return '\0'"),
    ("syntax", "def f(x):\n    return '\ud800'"),
    ("forbidden", "import socket\ndef f(x):\n    return socket.socket()"),
    ("crashed", "import os\ndef f(x):\n    os._exit(0)"),
    ("crashed", "import os\nos._exit(7)"),
    ("crashed", "import ctypes\ndef f(x):\n    ctypes.string_at(0)"),
]


@pytest.mark.parametrize(("status", "program"), CASES)
def test_each_end_of_a_call_has_its_status(pool, status, program):
    outcome = one(pool, program, limits=SHORT if status == "timeout" else SMALL)
    assert outcome.status == status, outcome
    assert (outcome.value is not None) == (status == "ok")
    assert (outcome.error is not None) == (status != "ok")


def test_the_error_is_its_class_and_a_message_cut_at_200_characters(pool):
    outcome = one(pool, "class Odd(Exception):\n    pass\ndef f(x):\n    raise Odd('y' * 1000)")
    assert outcome.error == "Odd: " + "y" * 200


def test_an_error_whose_text_cannot_be_made_is_still_an_error(pool):
    outcome = one(pool, "class Odd(Exception):\n    def __str__(self):\n        1 / 0\ndef f(x):\n    raise Odd")
    assert (outcome.status, outcome.error) == (Status.ERROR, "Odd: ")


@pytest.mark.parametrize("text", ["'\\ud800'", "'é漢😀'", "b'\\xff'", "'\\x00'", "1e-7", "-0.0", "{1: (2,), 'a': {3}}", "set()", "(1+2j)"])
def test_odd_values_come_back_as_they_are(pool, text):
    outcome = one(pool, "def f(x):\n    return x", text)
    assert outcome.value == repr(ast.literal_eval(text))


def test_inputs_are_answered_in_order_whatever_becomes_of_some(pool):
    program = """
import os, time
def f(x):
    if x == 1: os._exit(3)
    if x == 2: time.sleep(60)
    if x == 3: return [0] * 10**10
    if x == 4: raise ValueError(x)
    if x == 5: return f
    return x
"""
    inputs = tuple(str(x) for x in range(8)) + ("1) or (2", "0")
    expected = ["ok", "crashed", "timeout", "memory", "error", "not_literal", "ok", "ok", "syntax", "ok"]
    assert statuses(pool, program, inputs) == expected


def test_what_one_call_leaves_in_the_programs_globals_the_next_does_not_see(pool):
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    return seen"
    outcomes = pool.submit(Request(program, ("1", "2", "3"))).result()
    assert [outcome.value for outcome in outcomes] == ["[1]", "[2]", "[3]"]


def test_a_program_that_fails_on_import_fails_for_every_input_at_the_price_of_one(pool):
    start = time.monotonic()
    assert statuses(pool, "while True: pass", ("1",) * 20) == ["timeout"] * 20
    assert statuses(pool, "1 / 0", ("1", "2")) == ["error", "error"]
    assert statuses(pool, "import os; os._exit(0)", ("1", "2")) == ["crashed", "crashed"]
    assert time.monotonic() - start < 10


def test_no_input_is_no_outcome(pool):
    assert pool.submit(Request("def f(x): return x", ())).result() == []


def test_wall_time_holds_within_a_bound_and_cpu_time_is_its_own_limit(pool):
    start = time.monotonic()
    assert statuses(pool, "import time\ndef f(x):\n    time.sleep(60)", ("1",), Limits(wall_s=0.5, cpu_s=9.0)) == ["timeout"]
    assert statuses(pool, "def f(x):\n    while True: pass", ("1",), Limits(wall_s=60.0, cpu_s=0.3)) == ["timeout"]
    assert time.monotonic() - start < 15
    sleeper = one(pool, "import time\ndef f(x):\n    time.sleep(0.4)\n    return x", limits=Limits(wall_s=20.0, cpu_s=0.3))
    assert sleeper.ok
    assert sleeper.wall_s > 0.3 > sleeper.cpu_s  # more than its CPU limit; the clock may start a little after the program


def test_the_limit_of_output_is_the_requests(pool):
    program = "def f(x):\n    return 'y' * x"
    assert statuses(pool, program, ("8", "9"), Limits(20.0, 20.0, output_chars=10)) == ["ok", "output_too_large"]


def test_memory_is_counted_from_the_preloaded_interpreter(pool):
    program = "def f(x):\n    return len(bytearray(x << 20))"
    assert statuses(pool, program, ("40", "100"), Limits(20.0, 20.0, memory_mb=64)) == ["ok", "memory"]


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n    return list({'a', 'b', 'c', 'dd', 'ee', 'fff'})",
        "import random\ndef f(x):\n    return random.random()",
        "import time\ndef f(x):\n    return time.time_ns()",
        "def f(x):\n    return hash('azr')",
        "def f(x):\n    return id(f)",
        "import math\ndef f(x):\n    math.calls = getattr(math, 'calls', 0) + 1\n    return math.calls",
    ],
    ids=["set order", "random", "time", "hash", "address", "state in a module"],
)
def test_outputs_that_differ_between_runs_or_hash_seeds_are_nondeterministic(pool, program):
    assert one(pool, program, deterministic=True).status is Status.NONDETERMINISTIC


def test_deterministic_programs_keep_their_value_and_failures_their_status(pool):
    program = "import random\ndef f(x):\n    random.seed(x)\n    return 6 // x, sorted({'a', 'b', 'c'}), random.random()"
    good, bad = pool.submit(Request(program, ("3", "0"), deterministic=True)).result()
    assert ast.literal_eval(good.value)[:2] == (2, ["a", "b", "c"])
    assert bad.status is Status.ERROR
    assert statuses(pool, "def f(x):\n    while x: pass\n    return x", ("1", "0"), deterministic=True) == ["timeout", "ok"]


def test_nesting_and_recursion_in_c_end_the_child_and_not_the_worker(pool):
    before = pool.pids()
    deep = "def f(x):\n    a = []\n    for _ in range(10**6):\n        a = [a]\n    return repr(a)"
    unlimited = "import sys\nsys.setrecursionlimit(10**9)\n" + deep
    assert one(pool, deep).status in (Status.ERROR, Status.CRASHED, Status.MEMORY)
    assert one(pool, unlimited).status in (Status.ERROR, Status.CRASHED, Status.MEMORY)
    assert one(pool, "x = " + "(" * 10_000).status is Status.SYNTAX
    assert one(pool, "x = " + "-" * 100_000 + "1\ndef f(x): return x").status in (Status.SYNTAX, Status.CRASHED)
    assert pool.pids() == before
