"""How likely a task is drawn follows the strategy, is never 0, and the draw repeats itself."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_tasks import adder_task

from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.drawing import WEIGHTS, Candidate, hard, learnable, long, recent
from azr_nemo.tasks.task import Task, TaskType


@st.composite
def candidates(draw) -> Candidate:
    attempts = draw(st.integers(0, 10_000))
    return Candidate(1, draw(st.integers(0, 10_000)), draw(st.integers(1, 500)), attempts, draw(st.integers(0, attempts)))


@pytest.mark.parametrize("name", list(WEIGHTS))
@given(task=candidates())
def test_no_task_is_out_of_reach(name, task):
    assert WEIGHTS[name](task) > 0


def test_each_weight_says_what_its_name_says():
    task = Candidate(1, step=3, lines=4, attempts=8, solved=4)
    assert recent(task._replace(step=9)) > recent(task) > recent(task._replace(step=0)) == 1
    assert long(task._replace(lines=9)) == 9 > long(task)
    assert hard(task._replace(solved=0)) > hard(task) > hard(task._replace(solved=8))
    assert learnable(task) == 1 > learnable(task._replace(solved=0)) == pytest.approx(learnable(task._replace(solved=8)))
    untried = task._replace(attempts=0, solved=0)
    assert (hard(untried), learnable(untried)) == (0.5, 1)


@pytest.mark.parametrize(("name", "best"), [("recent", 9), ("long", 4), ("hard", 3), ("learnable", 2)])
def test_draws_follow_the_weights_and_repeat_themselves(tmp_path, name, best):
    """Five tasks of which one has by far the largest weight."""
    with TaskBuffer(tmp_path / "tasks.db", 100) as buffer:
        ids = {}
        for number in (1, 2, 3, 4, 9):
            body = "".join(f"    x += {i}\n" for i in range(60 if number == 4 else 1))
            task = Task(TaskType.DEDUCTION, f"def f(x):\n{body}    return x + {number}", ("1",), ("1",))
            ids[buffer.add(task, step=60 if number == 9 else 0)] = number
        for id, number in ids.items():
            buffer.record(id, {1: 400, 2: 200, 3: 0, 4: 400, 9: 400}[number], 400)
        counts = Counter(ids[buffer.sample(TaskType.DEDUCTION, 1, random.Random(seed), strategy=name)[0].id] for seed in range(200))
        assert counts.most_common(1)[0][0] == best
        assert counts[best] > 120
        again = [[stored.id for stored in buffer.sample(TaskType.DEDUCTION, 5, random.Random(2), strategy=name)] for _ in range(2)]
        assert again[0] == again[1]
        assert sorted(again[0]) == sorted(ids)


def test_an_unknown_strategy_is_named(tmp_path):
    with TaskBuffer(tmp_path / "tasks.db", 100) as buffer:
        buffer.add(adder_task(1), 0)
        with pytest.raises(ValueError, match="no sampling strategy 'best': uniform, recent, long"):
            buffer.sample(TaskType.DEDUCTION, 1, random.Random(1), strategy="best")
