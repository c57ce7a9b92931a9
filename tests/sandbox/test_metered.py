"""Programs are counted by the seconds in which the executor had any."""

from concurrent.futures import Future

import pytest

from azr_nemo.sandbox.executor import ExecutorUnavailable, Request, gather
from azr_nemo.sandbox.metered import MeteredExecutor

REQUEST = Request("def f(x): return x", ("1",))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Pending:
    """An executor whose requests end when the test says so."""

    def __init__(self):
        self.futures: list[Future] = []
        self.closed = False

    def submit(self, request):
        if self.closed:
            raise ExecutorUnavailable("closed")
        self.futures.append(Future())
        return self.futures[-1]

    submit_script = submit

    def describe(self):
        return "a stand-in"


@pytest.fixture
def parts():
    executor, clock = Pending(), Clock()
    return executor, clock, MeteredExecutor(executor, clock)


def test_time_without_work_does_not_count(parts):
    executor, clock, metered = parts
    clock.now = 100
    metered.submit(REQUEST)
    clock.now = 101
    metered.submit_script(REQUEST)  # two at once are still one second a second
    clock.now = 102
    executor.futures[0].set_result([])
    clock.now = 104
    executor.futures[1].set_result([])
    clock.now = 900
    assert metered.lap() == {"throughput/programs_per_s": 2 / 4}
    assert metered.lap() == {}


def test_a_program_that_runs_across_a_lap_counts_where_it_ends_and_its_time_where_it_passed(parts):
    executor, clock, metered = parts
    metered.submit(REQUEST)
    metered.submit(REQUEST)
    clock.now = 1
    executor.futures[0].set_result([])
    assert metered.lap() == {"throughput/programs_per_s": 1.0}
    clock.now = 3
    executor.futures[1].set_exception(ExecutorUnavailable("gone"))
    assert metered.lap() == {"throughput/programs_per_s": 0.5}


def test_what_was_dropped_or_refused_is_no_program(parts):
    executor, clock, metered = parts
    assert metered.submit(REQUEST).cancel()
    executor.closed = True
    with pytest.raises(ExecutorUnavailable):
        metered.submit(REQUEST)
    clock.now = 5
    assert metered.lap() == {}


def test_progress_is_told_of_each_result_in_order_also_while_requests_are_still_made():
    told: list[tuple[int, int]] = []
    made = 0

    def futures():
        nonlocal made
        for value in range(4):
            made += 1
            future: Future = Future()
            future.set_result(value)
            yield future

    assert gather(futures(), lambda more: told.append((more, made))) == [0, 1, 2, 3]
    assert told == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_a_failure_drops_what_was_not_begun():
    failed, waiting = Future(), Future()  # type: ignore[var-annotated]
    failed.set_exception(ExecutorUnavailable("gone"))
    told: list[int] = []
    with pytest.raises(ExecutorUnavailable, match="gone"):
        gather([failed, waiting], told.append)
    assert waiting.cancelled()
