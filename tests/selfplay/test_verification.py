"""Answers become verdicts; a dead sandbox is no verdict. Cheats are in tests/security/test_grading.py."""

from collections.abc import Iterator

import pytest
from sample_tasks import FakeExecutor, adder, adder_task

from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Status
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.validation import IDLE, Validator, Verifier, grade_rows, no_abduction
from azr_nemo.tasks.task import Refusal, Task, TaskType, Verdict

LIMITS = Limits(wall_s=20.0, cpu_s=20.0)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalPool]:
    try:
        made = LocalPool(workers=1, limits=LIMITS)
    except ExecutorUnavailable as error:
        pytest.skip(str(error))
    with made:
        yield made


def dead(request):
    raise ExecutorUnavailable("gone")


@pytest.mark.parametrize(
    ("answer", "verdict"), [("4", Verdict(1, "right")), ("5", Verdict(0, "wrong_value")), ("4; 5", Verdict(0, "not_one_call"))]
)
def test_an_abduction_answer_is_called_and_compared(answer, verdict):
    task = Task(TaskType.ABDUCTION, adder(3), ("4",), ("7",))
    assert Verifier(FakeExecutor(), LIMITS).submit(task, answer).result() == verdict


def test_deduction_runs_nothing():
    executor = FakeExecutor(dead)
    assert Verifier(executor, LIMITS).grade([(adder_task(3), "4"), (adder_task(3), "5"), (adder_task(3), "")]) == [
        Verdict(1, "right"),
        Verdict(0, "wrong_value"),
        Verdict(0, "not_literal"),
    ]
    assert not executor.requests


def test_the_executor_is_never_told_the_output():
    executor = FakeExecutor()
    Verifier(executor, LIMITS).submit(Task(TaskType.ABDUCTION, adder(3), ("4",), ("123456",)), "4").result()
    Verifier(executor, LIMITS).submit(adder_task(123456, TaskType.INDUCTION), adder(3)).result()
    assert "12345" not in repr(executor.requests)
    assert all(request.limits == LIMITS for request in executor.requests)


def test_a_partly_right_program_scores_only_where_that_is_asked_for():
    def half(request):
        return [Outcome(Status.OK, "6"), Outcome(Status.ERROR, error="ValueError: no")]

    verifier, task = Verifier(FakeExecutor(half), LIMITS), adder_task(3, TaskType.INDUCTION)
    assert verifier.submit(task, adder(3)).result() == Verdict(0.0, "error")
    assert verifier.submit(task, adder(3), partial=True).result() == Verdict(0.5, "error")


def test_a_dead_sandbox_is_raised_and_never_a_verdict():
    pending = Verifier(FakeExecutor(dead), LIMITS).submit(adder_task(1, TaskType.ABDUCTION), "1")
    with pytest.raises(ExecutorUnavailable):
        pending.result()


def test_honest_answers_score_in_the_real_sandbox(sandbox):
    words = Task(TaskType.ABDUCTION, "def f(s, n=1):\n    return s * n", ("'ab'",), ("'abab'",))
    honest = [
        (words, "'ab', n=2"), (words, "''.join(['ab', 'ab'])"), (words, "s='abab'"), (words, "'ab' * 2, 1"),
        (adder_task(3), "4"), (adder_task(3, TaskType.ABDUCTION), "1"), (adder_task(3, TaskType.INDUCTION), adder(3)),
        (adder_task(3, TaskType.INDUCTION), "def g(x):\n    return 3\ndef f(x):\n    return x + g(x)"),
    ]  # fmt: skip
    assert Verifier(sandbox, LIMITS).grade(honest) == [Verdict(1.0, "right")] * len(honest)


ROW = {"task_type": "abduction", "program": adder(3), "input": "1", "output": "4", "answer": "1"}
MANY = {"task_type": "induction", "program": adder(3), "inputs": ["1", "2"], "outputs": ["4", "5"], "answer": adder(3)}


def graded(*rows):
    return list(grade_rows([(f"answers.jsonl:{i}", row) for i, row in enumerate(rows, start=1)], Verifier(FakeExecutor(), LIMITS)))


def test_rows_are_graded_in_order():
    assert graded(ROW, ROW | {"answer": "2"}, MANY) == [
        {"score": 1, "reason": "right"},
        {"score": 0, "reason": "wrong_value"},
        {"score": 1, "reason": "right"},
    ]


@pytest.mark.parametrize(
    "row",
    [
        {}, [], None, "text", {key: ROW[key] for key in ROW if key != "answer"}, ROW | {"task_type": "code_o"}, ROW | {"output": 4},
        ROW | {"answer": None}, ROW | {"output": "f(1)"}, ROW | {"inputs": ["1", "2"]}, MANY | {"outputs": ["4"]},
        MANY | {"inputs": "12", "outputs": ["4", "5"]}, MANY | {"inputs": 3}, MANY | {"inputs": [], "outputs": []},
    ],
)  # fmt: skip
def test_an_error_in_a_row_names_its_line(row):
    with pytest.raises(UserError, match=r"^answers\.jsonl:2: "):
        graded(ROW, row)


BLIND = [
    ("def f(x):\n    return 'Alice'", "7", "'Alice'"),
    ("def f(people):\n    names = ['a', 'b']\n    return len(names)", "[{'name': 'a'}, {'name': 'b'}]", "2"),
    ("def f(x):\n    return isinstance(x, str)", "'abc'", "True"),
]
SEEING = [
    ("def f(x):\n    return x > 5", "10", "True"),
    ("def f(x):\n    return len(x) > 0", "'abc'", "True"),
    ("def f(x):\n    return {'a': 1}[x]", "'a'", "1"),  # another input is an error and answers nothing
    ("def f(g):\n    return 1", "lambda x: x", "1"),  # there is nothing to change
]


def test_programs_that_ignore_their_input_are_found_by_running_them(sandbox):
    tasks = [Task(TaskType.ABDUCTION, program, (text,), (output,)) for program, text, output in BLIND + SEEING]
    induction = Task(TaskType.INDUCTION, BLIND[0][0], ("1", "2"), ("'Alice'", "'Alice'"))
    found = no_abduction(Validator(sandbox, LIMITS), [*tasks, induction, Refusal("format")], ["ignores_input"])
    assert found == ["ignores_input"] * len(BLIND) + [""] * (len(SEEING) + 2)


ECHOED = [
    ("def f(x):\n    return sorted(x)", "[2, 1]", "[1, 2]"),
    ("def f(x):\n    return x.strip()", "' a '", "'a'"),
    ("def f(x, n):\n    return x[:n]", "'abc', 2", "'ab'"),
    ("def f(x):\n    return x", "3", "3"),
]
ASKING = [
    ("def f(x):\n    return x + 1", "3", "4"),
    ("def f(x):\n    return [len(x)]", "'abc'", "[3]"),
    ("def f(x, n):\n    return x * n", "'ab', 2", "'abab'"),
    ("def f(x):\n    return x['a']", "{'a': 1}", "1"),  # its output as its input raises
]


def test_programs_that_leave_their_output_as_it_is_are_found_by_running_them(sandbox):
    tasks = [Task(TaskType.ABDUCTION, program, (text,), (output,)) for program, text, output in ECHOED + ASKING]
    found = no_abduction(Validator(sandbox, LIMITS), [*tasks, Refusal("format")], ["echoed_output"])
    assert found == ["echoed_output"] * len(ECHOED) + [""] * (len(ASKING) + 1)
    constant = [Task(TaskType.ABDUCTION, "def f(x):\n    return 'Alice'", ("7",), ("'Alice'",))]
    assert no_abduction(Validator(sandbox, LIMITS), constant, list(IDLE)) == ["ignores_input"], "the first reason is told"
    assert no_abduction(Validator(sandbox, LIMITS), constant, []) == [""]
