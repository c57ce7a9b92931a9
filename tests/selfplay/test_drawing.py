"""Each value of `selfplay.solve_from` draws from the steps that it names, and the batch is full whatever those hold."""

import random

import pytest
from sample_tasks import FakeExecutor, adder_task

from azr_nemo.sandbox.executor import Limits
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.drawing import MIXES
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.validation import Verifier
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.task import PromptOptions, TaskType

NOW, PER_STEP = 6, 8


def drawn(folder, source: str, size: int, window: int = 3) -> list[int]:
    """The steps that a batch's tasks were created at, of a buffer with eight tasks of each step up to this one."""
    config = RunConfig()
    config.selfplay.solve_from, config.selfplay.solve_window = source, window
    config.selfplay.batch_size, config.selfplay.task_types = size, ["deduction"]
    with TaskBuffer(folder / f"{source}{window}{size}.db", 1000) as buffer:
        for step in range(NOW + 1):
            for number in range(PER_STEP):
                buffer.add(adder_task(100 * step + number), step, seed=step == 0)
        solver = Solver(buffer, Verifier(FakeExecutor(), Limits()), PromptOptions(), config, lambda text: True, list)
        chosen = solver.draw(NOW, random.Random(1))
    assert len({stored.id for stored in chosen}) == len(chosen) == size
    assert {stored.task.type for stored in chosen} == {TaskType.DEDUCTION}
    return [stored.step for stored in chosen]


@pytest.mark.parametrize(
    ("source", "first"), [("current", {6}), ("previous", {5}), ("recent", {4, 5, 6}), ("mixed", {6}), ("previous_mixed", {5})]
)
def test_the_named_steps_fill_their_share_of_the_batch(tmp_path, source, first):
    share = round(8 * MIXES[source].share)
    steps = drawn(tmp_path, source, 8)
    assert set(steps[:share]) <= first
    if source == "recent":
        assert len(set(steps)) > 1
    if share < 8:
        assert not set(steps[share:]) <= first


@pytest.mark.parametrize("source", list(MIXES))
def test_what_those_steps_lack_comes_from_the_whole_buffer(tmp_path, source):
    steps = drawn(tmp_path, source, 50)
    assert set(steps) == set(range(NOW + 1))


def test_the_window_says_how_far_back_recent_reaches(tmp_path):
    assert set(drawn(tmp_path, "recent", 8, window=1)) == {NOW}
    assert set(drawn(tmp_path, "recent", 40, window=NOW + 50)) <= set(range(NOW + 1))
    assert MIXES["recent"].steps(1, window=2) == range(2)  # seeds count as recent at first, as in the published code


def test_newer_tasks_are_likelier_to_be_solved_where_asked_for(tmp_path):
    newer, even = drawn(tmp_path, "newer", 28), drawn(tmp_path, "buffer", 28)
    assert sum(newer) > sum(even)


def test_learnable_tasks_are_likelier_to_be_solved_where_asked_for(tmp_path):
    config = RunConfig()
    config.selfplay.solve_from, config.selfplay.batch_size, config.selfplay.task_types = "learnable", 10, ["deduction"]
    with TaskBuffer(tmp_path / "tasks.db", 1000) as buffer:
        for number in range(100):
            buffer.record(buffer.add(adder_task(number), 1), 20 if number < 50 else 40, 40)
        solver = Solver(buffer, Verifier(FakeExecutor(), Limits()), PromptOptions(), config, lambda text: True, list)
        drawn = [stored.solved for seed in range(20) for stored in solver.draw(2, random.Random(seed))]
    assert drawn.count(20) > 4 * drawn.count(40)


def test_tasks_with_nothing_left_to_teach_are_asked_last(tmp_path):
    config = RunConfig()
    settings = config.selfplay
    settings.solve_from, settings.batch_size, settings.task_types = "mixed", 8, ["deduction"]
    settings.retire_easy, settings.retire_hard, settings.retire_after = 0.9, 0.1, 8
    records = {"easy": (8, 8), "hard": (0, 8), "young": (7, 7), "between": (4, 8), "untried": (0, 0)}
    with TaskBuffer(tmp_path / "tasks.db", 1000) as buffer:
        names = {}
        for number in range(20):
            name = list(records)[number % 5]
            names[id := buffer.add(adder_task(number), number % 2)] = name
            buffer.record(id, *records[name])
        solver = Solver(buffer, Verifier(FakeExecutor(), Limits()), PromptOptions(), config, lambda text: True, list)
        drawn = [names[stored.id] for seed in range(20) for stored in solver.draw(1, random.Random(seed))]
        assert set(drawn) == {"young", "between", "untried"}
        settings.batch_size = 16
        assert len(solver.draw(1, random.Random(1))) == 16  # four of them are retired, for want of others
        settings.retire_easy = settings.retire_hard = 0.0
        assert len({names[stored.id] for stored in solver.draw(1, random.Random(1))}) == 5
