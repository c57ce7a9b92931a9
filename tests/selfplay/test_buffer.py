"""The task buffer: what it keeps, what it refuses, what it forgets, what it draws."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sample_tasks import adder, adder_task

from azr_nemo.errors import UserError
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.tasks.task import Task, TaskType

DEDUCTION, ABDUCTION, INDUCTION = TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION


@pytest.fixture
def buffer(tmp_path):
    with TaskBuffer(tmp_path / "tasks.sqlite", capacity=100) as buffer:
        yield buffer


def fill(buffer, count, type=DEDUCTION, step=lambda i: i):
    with buffer.transaction():
        return [buffer.add(adder_task(i, type), step(i)) for i in range(count)]


def test_a_task_comes_back_as_it_was_stored(buffer):
    task = Task(INDUCTION, "def f(s):\n    # é\n    return s[::-1]", ("'aé'", "'\\n'"), ("'éa'", "'\\n'"), "Reverse “it”.")
    id = buffer.add(task, step=3, references=[7, 9], thought="hm")
    stored = buffer.get(id)
    assert (stored.task, stored.step, stored.references, stored.thought) == (task, 3, (7, 9), "hm")
    assert (stored.attempts, stored.solved, stored.is_seed, stored.lines) == (0, 0, False, 1)
    assert buffer.get(id + 1) is None


def test_the_same_program_written_otherwise_is_a_duplicate(buffer):
    assert buffer.add(Task(DEDUCTION, "def f(x):\n    return x+1", ("1",), ("2",)), step=1)
    rewritten = Task(DEDUCTION, "def f(x):\n    # adds one\n    return (x + 1)", ("1 ",), ("2",))
    assert buffer.contains(rewritten)
    assert buffer.add(rewritten, step=2) is None
    assert buffer.count() == 1


def test_a_refused_duplicate_does_not_use_up_an_id(buffer):
    first = buffer.add(adder_task(1), step=1)
    buffer.add(adder_task(1), step=1)
    assert buffer.add(adder_task(2), step=1) == first + 1


def test_another_type_input_or_program_is_another_task(buffer):
    task = adder_task(1)
    others = [replace(task, type=ABDUCTION), replace(task, inputs=("2",)), replace(task, program=adder(2))]
    for other in others:
        assert buffer.key(other) != buffer.key(task)
    assert all(buffer.add(each, step=1) for each in [task, *others])
    assert buffer.count() == 4


def test_the_message_of_an_induction_task_does_not_make_it_new(buffer):
    task = adder_task(1, INDUCTION)
    buffer.add(task, step=1)
    assert buffer.contains(replace(task, message="Another description."))


def test_inputs_are_told_apart_from_their_concatenation(buffer):
    one, other = (Task(INDUCTION, adder(1), inputs, ("1", "1"), "m") for inputs in (("1", "'2,3'"), ("1,'2", "3'")))
    assert buffer.key(one) != buffer.key(other)


def test_a_program_is_known_whatever_its_task_type_and_layout(buffer):
    buffer.add(adder_task(1, INDUCTION), step=1)
    assert buffer.knows_program("def f(x):\n    return (x + 1)  # one")
    assert not buffer.knows_program(adder(2))
    assert buffer.program_key(adder_task(1, INDUCTION)) == buffer.program_key(adder_task(1))


def test_a_full_type_evicts_its_oldest_and_keeps_the_newest(tmp_path):
    with TaskBuffer(tmp_path / "b", capacity=3) as buffer:
        fill(buffer, 5)
        buffer.add(adder_task(0, ABDUCTION), step=0)
        assert [s.step for s in buffer.tasks(DEDUCTION)] == [2, 3, 4]
        assert buffer.count(ABDUCTION) == 1


def test_eviction_goes_by_step_not_by_order_of_arrival(tmp_path):
    with TaskBuffer(tmp_path / "b", capacity=2) as buffer:
        for i, step in enumerate([5, 1, 4]):
            buffer.add(adder_task(i), step)
        assert [s.step for s in buffer.tasks()] == [5, 4]


def test_a_late_task_of_an_early_step_survives_its_own_arrival(tmp_path):
    with TaskBuffer(tmp_path / "b", capacity=1) as buffer:
        buffer.add(adder_task(0), step=9)
        newest = buffer.add(adder_task(1), step=1)
        assert [s.id for s in buffer.tasks()] == [newest]


def test_seeds_are_never_evicted_and_the_newest_task_survives_them(tmp_path):
    with TaskBuffer(tmp_path / "b", capacity=2) as buffer:
        seeds = [buffer.add(adder_task(i), step=0, seed=True) for i in range(4)]
        buffer.add(adder_task(10), step=1)
        newest = buffer.add(adder_task(11), step=2)
        assert [s.id for s in buffer.tasks()] == [*seeds, newest]


def test_an_evicted_task_may_come_back_under_a_new_id(tmp_path):
    with TaskBuffer(tmp_path / "b", capacity=1) as buffer:
        first = buffer.add(adder_task(0), step=1)
        second = buffer.add(adder_task(1), step=2)
        third = buffer.add(adder_task(0), step=3)
        assert len({first, second, third}) == 3


def test_the_id_of_a_removed_task_is_never_given_to_another(buffer):
    removed = buffer.add(adder_task(0), step=5)
    buffer.remove_after(4)
    assert buffer.add(adder_task(1), step=5) > removed


def test_outcomes_add_up(buffer):
    id = buffer.add(adder_task(1), step=1)
    buffer.record(id, solved=1, attempts=4)
    buffer.record(id, solved=3, attempts=4)
    assert (buffer.get(id).solved, buffer.get(id).attempts) == (4, 8)
    buffer.record(id + 99, solved=1, attempts=1)
    with pytest.raises(ValueError, match="5 solved of 4"):
        buffer.record(id, solved=5, attempts=4)


def test_uniform_draws_are_distinct_and_repeatable(buffer):
    fill(buffer, 50)
    first = buffer.sample(DEDUCTION, 20, random.Random(1))
    assert first == buffer.sample(DEDUCTION, 20, random.Random(1))
    assert first != buffer.sample(DEDUCTION, 20, random.Random(2))
    assert len({s.id for s in first}) == 20


@pytest.mark.parametrize("strategy", ["uniform", "recent"])
def test_fewer_come_when_fewer_exist(buffer, strategy):
    ids = fill(buffer, 3)
    assert {s.id for s in buffer.sample(DEDUCTION, 10, random.Random(1), strategy)} == set(ids)
    assert buffer.sample(ABDUCTION, 10, random.Random(1), strategy) == []


def test_filters_narrow_the_draw(buffer):
    ids = fill(buffer, 6)
    longer = buffer.add(Task(DEDUCTION, "def f(x):\n    y = x\n    return y", ("1",), ("1",)), step=2)
    rng = random.Random(1)
    assert {s.step for s in buffer.sample(DEDUCTION, 9, rng, since_step=4)} == {4, 5}
    assert {s.id for s in buffer.sample(DEDUCTION, 9, rng, exclude={longer, *ids[2:]})} == set(ids[:2])
    assert [s.id for s in buffer.sample(DEDUCTION, 9, rng, lines=2)] == [longer]
    assert buffer.lengths(DEDUCTION) == [1, 2]


def test_recent_draws_favour_newer_tasks_in_proportion_to_their_step(buffer):
    fill(buffer, 4, step=lambda i: i)
    rng = random.Random(1)
    drawn = Counter(buffer.sample(DEDUCTION, 1, rng, "recent")[0].step for _ in range(4000))
    for step in range(4):
        assert drawn[step] / 4000 == pytest.approx((step + 1) / 10, abs=0.03)


def test_recent_draws_work_while_everything_is_step_0(buffer):
    fill(buffer, 5, step=lambda i: 0)
    assert len(buffer.sample(DEDUCTION, 5, random.Random(1), "recent")) == 5


def test_an_unknown_strategy_is_an_error(buffer):
    with pytest.raises(ValueError, match="newest"):
        buffer.sample(DEDUCTION, 1, random.Random(1), "newest")


def test_a_draw_sees_what_was_written_since_the_last_one(buffer):
    fill(buffer, 2)
    assert len(buffer.sample(DEDUCTION, 9, random.Random(1))) == 2
    buffer.add(adder_task(7), step=7)
    assert len(buffer.sample(DEDUCTION, 9, random.Random(1))) == 3
    buffer.remove_after(0)
    assert len(buffer.sample(DEDUCTION, 9, random.Random(1))) == 1


def test_large_draws_pass_the_parameter_limit_of_sqlite(tmp_path):
    with TaskBuffer(tmp_path / "b", capacity=5000) as buffer:
        fill(buffer, 1200)
        assert len({s.id for s in buffer.sample(DEDUCTION, 1200, random.Random(1))}) == 1200


def test_recent_gives_the_tasks_of_one_step(buffer):
    fill(buffer, 4, step=lambda i: i // 2)
    assert [s.step for s in buffer.recent(DEDUCTION, 1)] == [1, 1]
    assert buffer.steps == [0, 1]


def test_removing_after_a_step_keeps_that_step(buffer):
    fill(buffer, 5)
    assert buffer.remove_after(2) == 2
    assert buffer.steps == [0, 1, 2]


def test_a_failed_transaction_leaves_nothing(buffer):
    fill(buffer, 2)

    def write_and_fail():
        with buffer.transaction():
            buffer.add(adder_task(50), step=5)
            assert len(buffer.sample(DEDUCTION, 9, random.Random(1))) == 3
            with buffer.transaction():
                buffer.add(adder_task(51), step=5)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()
    assert buffer.count() == 2
    assert len(buffer.sample(DEDUCTION, 9, random.Random(1))) == 2


def test_threads_may_write_at_the_same_time(buffer):
    def write(thread):
        for i in range(20):
            with buffer.transaction():
                id = buffer.add(adder_task(100 * thread + i, ABDUCTION), step=thread)
                buffer.record(id, 1, 2)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert buffer.count() == 80
    assert {(s.attempts, s.solved) for s in buffer.tasks()} == {(2, 1)}


def test_notes_are_kept_with_the_tasks(buffer):
    def write_and_fail():
        with buffer.transaction():
            buffer.write_note("seeding", {"rounds": 1})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()
    assert buffer.read_note("seeding") == {}
    buffer.write_note("seeding", {"rounds": 1})
    buffer.write_note("seeding", {"rounds": 2})
    assert buffer.read_note("seeding") == {"rounds": 2}


def test_statistics_of_an_empty_and_of_a_used_buffer(buffer):
    empty = buffer.statistics()
    assert (empty.tasks[DEDUCTION], empty.seeds, empty.programs, empty.lines, empty.solve_rate) == (0, 0, 0, 0.0, None)
    id = buffer.add(adder_task(1), step=0, seed=True)
    buffer.add(adder_task(1, ABDUCTION), step=1)
    buffer.add(Task(DEDUCTION, "def f(x):\n    y = x\n    return y", ("1",), ("1",)), step=1)
    buffer.record(id, 1, 4)
    used = buffer.statistics()
    assert used.tasks == {DEDUCTION: 2, ABDUCTION: 1, INDUCTION: 0}
    assert (used.seeds, used.programs, used.lines, used.solve_rate) == (1, 2, pytest.approx(4 / 3), 0.25)


def test_a_capacity_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="buffer_capacity"):
        TaskBuffer(tmp_path / "b", capacity=0)


def test_shapes_are_counted_by_type_and_follow_the_buffer(buffer):
    fill(buffer, 3)
    buffer.add(Task(DEDUCTION, "def f(x):\n    return x * 2", ("1",), ("2",)), 1)
    fill(buffer, 1, TaskType.ABDUCTION)
    assert sorted(buffer.shapes(DEDUCTION).values()) == [1, 3]
    assert list(buffer.shapes(TaskType.ABDUCTION).values()) == [1]
    buffer.remove_after(0)
    assert list(buffer.shapes(DEDUCTION).values()) == [1]
