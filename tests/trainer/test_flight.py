"""Steps in flight: which weights sample which step, what happens beside an update, and what of it a checkpoint gives back."""

import threading
from dataclasses import replace

import pytest
from test_schedules import canned, scheduled

from azr_nemo.errors import UserError
from azr_nemo.observe.console import Console
from azr_nemo.observe.timing import PhaseClock
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.trainer.driver import Driver
from azr_nemo.trainer.flight import FILE, Flight, read_in_flight
from azr_nemo.trainer.reporting import staleness

STEPS = 5


class CannedEngine:
    """Answers by the seed alone, with the version of its weights."""

    def __init__(self, version=0):
        self.version, self.asked, self.began, self.fails = version, 0, threading.Event(), False
        self.changes = False  # whether weights come between tokens

    def generate(self, batch, seed):
        self.asked += 1
        self.began.set()
        if self.fails:
            raise UserError("a sampler is gone")
        groups = canned(batch, self.version, 1000 + seed % 100_000)
        newer = ((1, self.version + 1),) if self.changes else ()
        return [[replace(completion, newer=newer) for completion in group] for group in groups]


def flight(folder, staleness, engine, recorded=None, schedule="sequential", buffer=None):
    play = scheduled(folder, schedule)
    play.config.selfplay.staleness, play.config.selfplay.steps = staleness, STEPS
    if buffer:
        for part in (play, play.proposer, play.solver):
            part.buffer = buffer
    console = Console("json", (folder / "console").open("w"))
    drivers = [Driver(engine, PhaseClock(), console, seed=1) for _ in range(2)]
    return Flight(play, *drivers, recorded or {})


def versions(sampled):
    return {completion.weight_version for batch in sampled.result.rollouts for completion in [batch.completion]}


def go(flying, engine, steps, done=0):
    """Learns from `steps` steps, and tells of each the versions that drew it."""
    seen = {}
    for step in range(done + 1, done + steps + 1):
        seen[step] = versions(flying.take(step))
        with flying.sampling(step):
            pass
        engine.version += 1
    return seen


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_a_step_is_drawn_by_the_weights_of_so_many_updates_before(tmp_path, staleness):
    engine = CannedEngine()
    seen = go(flight(tmp_path, staleness, engine), engine, STEPS)
    assert seen == {step: {max(0, step - 1 - staleness)} for step in range(1, STEPS + 1)}


def test_the_next_step_is_sampled_while_one_is_learnt_from(tmp_path):
    engine = CannedEngine()
    flying = flight(tmp_path, 1, engine)
    flying.take(1)
    engine.began.clear()
    with flying.sampling(1):
        assert engine.began.wait(60), "nothing is sampled beside the update"
    asked = engine.asked
    flying.take(2)
    assert engine.asked == asked


def test_nothing_is_sampled_beyond_the_last_step(tmp_path):
    engine = CannedEngine()
    flying = flight(tmp_path, 2, engine)
    go(flying, engine, STEPS)
    assert engine.asked == 3 * STEPS
    assert flying.state(STEPS) == (None, b"")


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
@pytest.mark.parametrize("staleness", [1, 2])
def test_what_is_in_flight_goes_on_from_a_checkpoint_exactly_and_is_not_sampled_again(tmp_path, staleness, schedule):
    engine = CannedEngine()
    engine.changes = staleness == 2
    flying = flight(tmp_path / "run", staleness, engine, schedule=schedule)
    go(flying, engine, 2)
    image, content = flying.state(2)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / FILE).write_bytes(content)
    (tmp_path / "checkpoint" / "buffer.sqlite").write_bytes(image)
    asked = engine.asked
    expected = [flying.take(3)]

    other = CannedEngine(version=2)
    other.changes = engine.changes
    buffer = TaskBuffer.restore(tmp_path / "checkpoint" / "buffer.sqlite", tmp_path / "restored.sqlite", 100)
    resumed = flight(tmp_path / "resumed", staleness, other, read_in_flight(tmp_path / "checkpoint"), schedule, buffer)
    found = [resumed.take(3)]
    assert (asked, other.asked, resumed.dropped) == (engine.asked, 0, 0)
    assert [s.result.rollouts for s in found] == [s.result.rollouts for s in expected]
    assert [s.result.metrics for s in found] == [s.result.metrics for s in expected]
    assert [(s.tokens, s.answers) for s in found] == [(s.tokens, s.answers) for s in expected]
    for whole, engine_ in ((flying, engine), (resumed, other)):
        with whole.sampling(3):
            pass
        engine_.version += 1
    assert resumed.take(4).result.rollouts == flying.take(4).result.rollouts
    assert buffer.tasks() == flying.selfplay.buffer.tasks()


def test_what_is_too_old_for_a_smaller_bound_is_dropped_counted_and_drawn_again(tmp_path):
    engine = CannedEngine()
    flying = flight(tmp_path / "run", 1, engine)
    go(flying, engine, 2)
    image, content = flying.state(2)
    (tmp_path / FILE).write_bytes(content)
    (tmp_path / "image.sqlite").write_bytes(image)
    other = CannedEngine(version=2)
    other.changes = engine.changes
    buffer = TaskBuffer.restore(tmp_path / "image.sqlite", tmp_path / "restored.sqlite", 100)
    resumed = flight(tmp_path / "resumed", 0, other, read_in_flight(tmp_path), buffer=buffer)
    assert versions(resumed.take(3)) == {2}
    assert resumed.dropped == sum(len(group) for batch in flying.take(3).answers for group in batch) > 0


def test_an_error_beside_the_update_ends_the_run(tmp_path):
    engine = CannedEngine()
    flying = flight(tmp_path, 1, engine)
    flying.take(1)
    engine.fails = True
    with pytest.raises(UserError, match="a sampler is gone"), flying.sampling(1):
        pass


def test_a_damaged_file_of_steps_in_flight_says_what_to_do(tmp_path):
    assert read_in_flight(tmp_path) == {}
    (tmp_path / FILE).write_text('{"3": [[')
    with pytest.raises(UserError, match=r"in_flight\.json is damaged .* the checkpoint before it"):
        read_in_flight(tmp_path)


def test_a_row_is_as_old_as_its_oldest_token_and_answers_of_several_versions_are_counted(tmp_path):
    engine = CannedEngine(version=3)
    whole = flight(tmp_path / "whole", 1, engine).take(1).result
    engine.changes = True
    mixed = flight(tmp_path / "mixed", 1, engine).take(1).result
    assert staleness(whole, 5) == {"staleness/mean": 2.0, "staleness/max": 2.0}
    assert staleness(mixed, 5) == {"staleness/mean": 2.0, "staleness/max": 2.0, "staleness/mixed": 1.0}
