"""Whether a program looks at its input is told by other inputs of the same shape."""

import pytest

from azr_nemo.tasks.other_inputs import answered_by_its_output, echoes, ignores_input, other_inputs, repeats_output
from azr_nemo.tasks.program import one_call
from azr_nemo.tasks.task import Refusal, Result, Task, TaskType


@pytest.mark.parametrize("text", ["5", "'abc', [1, 2, 3]", "{'a': True}", "(1.5, None)", "x=3", "b'ab'", "-3"])
def test_other_inputs_are_different_calls_with_values_of_the_same_types(text):
    found = other_inputs(text)
    assert len(found) >= 2
    assert len({text, *found}) == len(found) + 1
    assert not any(isinstance(one_call(other), Refusal) for other in found)
    assert found == other_inputs(text)


def test_what_cannot_be_changed_has_no_other_inputs():
    assert other_inputs("lambda x: x") == other_inputs("None") == other_inputs("1) or (2") == []


def test_one_other_input_proves_nothing():
    task = Task(TaskType.ABDUCTION, "def f(x):\n    return 1", ("3",), ("1",))
    same = Result(True, "1")
    assert not ignores_input(task, [same])
    assert ignores_input(task, [same, same])
    assert not ignores_input(task, [same, same, Result(False, None, "error")])


@pytest.mark.parametrize(
    ("given", "output", "asked"),
    [
        ("[2, 1]", "[1, 2]", ["[1, 2]"]),
        ("'ab', 3", "'abab'", ["'abab', 3", "'ab', 'abab'"]),
        ("(1, 2), key=None, **{'a': 1}", "2", ["2, key=None, **{'a': 1}"]),
        ("*[1, 2]", "2", []),  # which argument is which is not written
        ("1) or (2", "2", []),
    ],
)
def test_an_echo_is_the_output_in_the_place_of_each_argument(given, output, asked):
    task = Task(TaskType.ABDUCTION, "def f(*x, **y):\n    return x", (given,), (output,))
    assert list(echoes(task).inputs) == asked


def test_a_task_is_answered_by_its_output_where_one_echo_gives_it():
    task = Task(TaskType.ABDUCTION, "def f(x):\n    return sorted(x)", ("[2, 1]",), ("[1, 2]",))
    assert answered_by_its_output(task, [Result(False, None, "error"), Result(True, "[1,  2]")])
    assert not answered_by_its_output(task, [Result(True, "[2, 1]"), Result(False, "[1, 2]", "error")])
    assert not answered_by_its_output(task, [])


@pytest.mark.parametrize(
    ("answer", "output", "repeats"),
    [
        ("[1, 2]", "[1,2]", True),
        ("3, x='a'", "'a'", True),
        ("True", "1", False),
        ("1", "1.0", False),
        ("1) or (2", "1", False),
        ("list()", "[]", False),
    ],
)
def test_an_answer_repeats_the_output_where_an_argument_is_that_very_value(answer, output, repeats):
    assert repeats_output(answer, output) is repeats


@pytest.mark.parametrize(
    "answer", ["0x" + "f" * 5000, "[" * 80 + "]" * 80, "'" + "a" * 10**5 + "'", "x=" + "-" * 300 + "1", "**{'x': 1}", "*'ab'"]
)
def test_what_a_model_wrote_raises_nothing_here(answer):
    assert repeats_output(answer, "1") is False
    assert isinstance(echoes(Task(TaskType.ABDUCTION, "def f(x):\n    return x", (answer,), ("1",))).inputs, tuple)
    assert repeats_output("1", answer) is False
