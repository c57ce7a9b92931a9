"""Programs of one shape differ in names and constants alone."""

import pytest

from azr_nemo.rewards.intrinsic.shape_novelty import shape_novelty
from azr_nemo.tasks.program_shape import shape
from azr_nemo.tasks.task import Task, TaskType

SAME = [
    ("def f(x):\n    return x + 1", 'def f(age: int) -> int:\n    """Older."""\n    return age + 30  # years'),
    ("def f(a, b):\n    y = a * b\n    return y", "def f(p, q):\n    total: int = p * q\n    return total"),
    ("def f(s):\n    return [c for c in s if c != 'a']", "def f(word):\n    return [letter for letter in word if letter != 'zz']"),
    ("def g(x):\n    return x\ndef f(x):\n    return g(x)", "def same(y):\n    return y\ndef f(z):\n    return same(z)"),
]
OTHER = [
    ("def f(x):\n    return x + 1", "def f(x):\n    return x - 1"),
    ("def f(x):\n    return x.upper()", "def f(x):\n    return x.lower()"),
    ("def f(x):\n    return len(x)", "def f(x):\n    return sum(x)"),
    ("def f(x):\n    return x + 1", "def f(x):\n    return x + '1'"),
    ("def f(x):\n    return sorted(x, key=len)", "def f(x):\n    return sorted(x, reverse=len)"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_names_constants_and_annotations_are_no_part_of_a_shape(one, other):
    assert shape(one) == shape(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_a_program_does_is(one, other):
    assert shape(one) != shape(other)


def test_a_text_that_does_not_parse_has_a_shape_of_its_own():
    assert shape("def f(x:") == shape("def f(x:") != shape("def f(y:")


def test_the_nth_task_of_a_shape_earns_one_over_the_root_of_n():
    class Known:
        def shapes(self, type):
            return {shape(SAME[0][0]): 3}

    task = Task(TaskType.DEDUCTION, SAME[0][1], ("1",), ("31",))
    assert shape_novelty(task, [], Known()) == 0.5
