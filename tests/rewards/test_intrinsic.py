"""Intrinsic rewards measure what they say, within their bounds, and combine in the four published ways."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.errors import UserError
from azr_nemo.rewards.intrinsic.combine import COMBINE, combine, values
from azr_nemo.rewards.intrinsic.complexity import complexity
from azr_nemo.rewards.intrinsic.component import Component
from azr_nemo.rewards.intrinsic.diversity import answer_diversity, input_diversity, output_diversity, surprise
from azr_nemo.rewards.intrinsic.edit_distance import edit_distance
from azr_nemo.rewards.intrinsic.halstead import halstead
from azr_nemo.tasks.task import Task, TaskType

STRAIGHT = "def f(x):\n    return x + 1"
NESTED = "def f(x):\n    for i in range(x):\n        if i % 2:\n            while x:\n                x -= i\n    return x"
DEEP = "def f(x):\n    return " + "lambda: " * 1500 + "x"


class Known:
    def __init__(self, inputs=(), outputs=()):
        self.inputs, self.outputs = lambda kind: Counter(inputs), lambda kind: Counter(outputs)
        self.shapes = self.inputs


def task(program=STRAIGHT, kind=TaskType.DEDUCTION, inputs=("1",), outputs=("2",)):
    return Task(kind, program, tuple(inputs), tuple(outputs))


def test_complexity_counts_nested_control_flow_and_nothing_else():
    assert complexity(task(STRAIGHT), [], Known()) == 0
    assert complexity(task(NESTED), [], Known()) == pytest.approx((1 + 2 + 3) / 15)  # each level of nesting costs one more


def test_halstead_is_the_published_mixture():
    from radon.metrics import h_visit

    total = h_visit(NESTED).total
    expected = 0.5 * min(total.effort / 1e4, 1) + 0.3 * 4 / 10 + 0.2 * min(total.volume / 500, 1)  # three branches and the function itself
    assert halstead(task(NESTED), [], Known()) == pytest.approx(expected)
    assert halstead(task(STRAIGHT), [], Known()) < halstead(task(NESTED), [], Known()) <= 1


@pytest.mark.parametrize("measure", [complexity, halstead, edit_distance])
def test_a_program_too_deep_to_measure_ends_nothing(measure):
    assert 0 <= measure(task(DEEP), [task(STRAIGHT)], Known()) <= 1


def test_edit_distance_ignores_layout_and_sees_a_changed_name():
    commented = "def f( x ):\n    # one more\n    return (x+1)"
    assert edit_distance(task(STRAIGHT), [task(commented)], Known()) == 0
    renamed = edit_distance(task(STRAIGHT), [task("def f(y):\n    return y + 1")], Known())
    assert 0 < renamed < edit_distance(task(STRAIGHT), [task(NESTED)], Known()) <= 1
    assert edit_distance(task(STRAIGHT), [], Known()) == 1


def test_edit_distance_is_a_mean_over_the_references():
    near, far = task(STRAIGHT), task(NESTED)
    alone = edit_distance(task(STRAIGHT), [far], Known())
    assert edit_distance(task(STRAIGHT), [near, far], Known()) == pytest.approx(alone / 2)


def test_an_answer_that_is_common_surprises_less():
    known = Known(outputs=["2"] * 3 + ["[1]"], inputs=["1", "7"])
    assert answer_diversity(False)(task(outputs=["2"]), [], known) == pytest.approx(1 / 4)
    assert answer_diversity(False)(task(outputs=["9"]), [], known) == 1
    # int is three of four; within int, 2 is all there is
    assert answer_diversity(True)(task(outputs=["2"]), [], known) == pytest.approx(((1 - 3 / 4) + 0) / 2)
    assert answer_diversity(True)(task(outputs=["9"]), [], known) == pytest.approx(((1 - 3 / 4) + 1) / 2)
    assert answer_diversity(True)(task(outputs=["{}"]), [], known) == 1
    assert answer_diversity(False)(task(kind=TaskType.ABDUCTION, inputs=["7"]), [], known) == pytest.approx(1 / 2)


def test_pairs_are_averaged():
    pairs = task(kind=TaskType.INDUCTION, inputs=["1", "5"], outputs=["2", "6"])
    known = Known(inputs=["1"], outputs=["2", "6"])
    assert input_diversity(False)(pairs, [], known) == pytest.approx(1 / 2)
    assert output_diversity(False)(pairs, [], known) == pytest.approx(1 / 2)


@given(st.lists(st.sampled_from(["1", "2", "[3]", "'a'", "g(1)", "None"]), min_size=1), st.lists(st.text(max_size=4)), st.booleans())
def test_surprise_lies_between_nothing_and_one(texts, known, hierarchical):
    assert 0 <= surprise(texts, Counter(known), hierarchical) <= 1


@given(st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=1, max_size=5))
def test_the_four_ways_to_combine(earned, parts):
    added, multiplied = sum(parts), math.prod(parts)
    found = [combine(earned, parts, how) for how in COMBINE]
    assert found == pytest.approx([earned + added, earned * multiplied, earned + multiplied, earned * added])
    assert {combine(earned, [], how) for how in COMBINE} == {earned}


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-1, 1))
def test_a_component_is_weighted_and_then_capped(coef, value, largest):
    part = Component("mine", lambda *_: value, coef, largest)
    assert values([part], task(), [], Known()) == {"mine": min(coef * value, largest)}


def test_a_component_is_asked_about_its_own_task_types_alone():
    part = Component("pairs", lambda *_: 1 / 0, 1.0, 1.0, frozenset({TaskType.INDUCTION}))
    assert values([part], task(), [], Known()) == {}


@pytest.mark.parametrize(("reward", "word"), [(lambda *_: math.nan, "nan"), (lambda *_: "much", "ValueError"), (lambda: 1.0, "TypeError")])
def test_a_reward_that_gives_no_number_is_named(reward, word):
    with pytest.raises(UserError, match=rf"reward\.intrinsic\.mine .*{word}"):
        values([Component("mine", reward, 1.0, 1.0)], task(), [], Known())
