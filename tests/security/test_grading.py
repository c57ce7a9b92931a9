"""End to end, as the trainer grades: whatever an answer says, it is one honest call judged by its true outcome, or it scores nothing."""

from collections.abc import Iterator

import pytest
from injections import GRADING, KNOWN

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.validation import Verifier
from azr_nemo.tasks.task import Task, TaskType, Verdict

LIMITS = Limits(wall_s=20.0, cpu_s=20.0)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    try:
        made = LocalPool(workers=1, limits=LIMITS)
    except ExecutorUnavailable as error:
        pytest.skip(str(error))
    with made:
        yield Verifier(made, LIMITS)


def abduction(program: str, output: str) -> Task:
    return Task(TaskType.ABDUCTION, program, ("1",), (output,))


def induction(outputs: tuple[str, ...]) -> Task:
    """The second half is hidden from whoever answers."""
    return Task(TaskType.INDUCTION, "def f(x):\n    return x", tuple(str(x) for x in range(len(outputs))), outputs)


SEVEN = abduction(KNOWN, "7")
HONEST = {"3.5": 1.0}  # 3.5 * 2 == 7, by Python's own equality
INJECTIONS = [text for attack in GRADING for text in attack.arguments] + [
    'print("True") or 1',
    "print(True)) or (1",
    "0)\n7 == (7",
    "\\\n3.5",
]


@pytest.mark.parametrize("answer", INJECTIONS)
def test_an_injected_answer_scores_what_its_one_honest_call_is_worth(verifier, answer):
    assert verifier.submit(SEVEN, answer).result().score == HONEST.get(answer.strip("\\\n"), 0.0)


# f(1) is 1 and the stored output is 0: no honest input below gives it, so a score could only be a cheat.
STATEFUL = abduction("X = []\ndef f(x):\n    return len(X) + 1", "0")
MORE_STATE = abduction("X = []\ndef f(x):\n    return len(X) + 1", "2")
CHEATS = [
    "2) or (0", "0)\n0 == (0", "1); f(2", "1) #", "1) * (0", "x := 0", "*[1]", "setattr(f, '__code__', 1)", "globals()", "X.append(1)",
    "X.clear()", "__import__('os')", "getattr(f, '__setattr__')('__code__', getattr(lambda x: 0, '__code__')) or 1",
    "(lambda: f.__globals__)()", "'{0.__globals__}'.format(f)", "[f for f in [lambda x: 0]][0](1)", "(lambda f: 0)(1)", "f(1)", "type(f)",
    # A comprehension may call any name `math`, and what it calls so is not the module.
    "[[0 for X in []], [math.append(1) for math in [X]]]", "[math.append(1) for math in [X]]", "[0 for X[0:] in [[1]]]", "X",
]  # fmt: skip


@pytest.mark.parametrize("answer", CHEATS)
def test_an_answer_cannot_change_what_the_program_keeps(verifier, answer):
    assert [verdict.score for verdict in verifier.grade([(STATEFUL, answer), (MORE_STATE, answer)])] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("'3'", "'3.0'", 0), ("'3'", "3", 0), ("'3'", "3.0", 0), ("3", "'3'", 0), ("'1+1'", "'2'", 0), ("2", "1+1", 0), ("'True'", "True", 0),
        ("7", "f(7)", 0), ("7", "7 or 1", 0), ("7", "[7][0]", 0), ("7", "7 if 1 else 0", 0), ("7", "(lambda: 7)()", 0), ("7", "7; 7", 0),
        ("7", "7\n8", 0), ("7", "int('7')", 0), ("7", "７", 0), ("7", "print('7')", 0), ("7", "__import__('os').getpid()", 0), ("7", "", 0),
        ("7", "x := 7", 0), ("7", "7 == 7", 0), ("[1, 2]", "(1, 2)", 0), ("[1, 2]", "[2, 1]", 0), ("0.3", "0.1 + 0.2", 0), ("7", "[" * 199, 0),
        ("7", "-" * 9000 + "7", 0), ("7", "9" * 5000, 0), ("7", "7" + " " * 30_000, 0), ("7", "{[]: 1}", 0),
        # Equal by Python's own equality, as the reference has it.
        ("3", "3.0", 1), ("1", "True", 1), ("{1, 2}", "{2, 1}", 1), ("7", "(7)", 1), ("7", "7  # seven", 1), ("7", "0x7", 1), ("'ab'", "'a' 'b'", 1),
    ],
)  # fmt: skip
def test_a_stated_output_is_read_and_never_evaluated(verifier, gold, answer, score):
    task = Task(TaskType.DEDUCTION, "def f(x):\n    return x", (gold,), (gold,))
    assert verifier.submit(task, answer).result().score == score


SEARCH = """
import enum
def every():
    frame = enum.sys._getframe()
    while frame:
        yield from list(getattr(frame, 'f_' + 'locals').values()) + list(getattr(frame, 'f_' + 'globals').values())
        frame = getattr(frame, 'f_' + 'back')
    yield from enum.sys.modules['gc'].get_objects()
def found(value, depth=0):
    if type(value) is int and 91820 < value < 91830:
        yield value
    elif type(value) is str and '9182' in value and 'every' not in value:
        yield from [int(word) for word in value.split() if word.isdigit()]
    elif type(value) in (list, tuple, set) and depth < 3:
        for part in list(value):
            yield from found(part, depth + 1)
    elif type(value) is dict and depth < 3:
        yield from found(list(value.values()), depth)
def f(x):
    return next((n for value in every() for n in found(value) if n), 0)
"""
FORGE = """
import enum
def f(x):
    modules = enum.sys.modules
    for n in range(9):
        body = modules['json'].dumps(['result', 'ok', str(91820 + n), None, 0.1, 0.1]).encode()
        modules['os'].write(3, modules['struct'].pack('<I', len(body)) + body)
    return 0
"""
LIARS = {
    "equal to everything": "class L:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return L()",
    "a repr that remembers": "seen = []\nclass L:\n    def __repr__(self):\n        return str(seen[0] + 3)\n"
    "def f(x):\n    seen.append(x)\n    return L()",
    "an int that equals everything": "class L(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = None\ndef f(x):\n    return L()",
    "a str with another repr": "class L(str):\n    def __repr__(self):\n        return '91824'\ndef f(x):\n    return L()",
    "a class that equals every class": "class M(type):\n    def __eq__(cls, other):\n        return True\n    __hash__ = type.__hash__\n"
    "class L(metaclass=M):\n    def __repr__(self):\n        return '91824'\ndef f(x):\n    return L()",
    "a reader of frames, globals and the heap": SEARCH,
    "a writer of results": FORGE,
}  # fmt: skip


@pytest.mark.parametrize("name", LIARS)
def test_a_program_that_lies_or_looks_for_the_hidden_outputs_scores_nothing(verifier, name):
    task = induction(tuple(str(91820 + n) for n in (3, 1, 7, 5)))
    verdict = verifier.submit(task, LIARS[name]).result()
    assert verdict.score == 0
    assert verdict.reason in ("wrong_value", "not_literal", "crashed", "error"), "it ran, and was not merely refused"


def test_the_search_of_frames_would_find_an_output_that_was_there(verifier):
    """So that the test above means something."""
    task = induction(("0", "0", "91825", "91825"))
    assert verifier.submit(task, SEARCH.replace("def f(x):", "HIDDEN = [91825]\ndef f(x):")).result() == Verdict(1.0, "right")
