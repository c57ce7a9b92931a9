"""Phases add up to the step, and durations read well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.observe.timing import PhaseClock, clock_text, remaining


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


def test_an_inner_phase_is_not_counted_in_the_outer_one():
    time = Time()
    clock = PhaseClock(time)
    time.pass_(1)
    with clock.phase("estimate"):
        time.pass_(2)
        with clock.phase("execute"):
            time.pass_(4)
        time.pass_(8)
    time.pass_(16)
    assert clock.lap() == {"step/seconds": 31, "time/other_s": 17, "time/estimate_s": 10, "time/execute_s": 4}


def test_a_lap_starts_anew_also_inside_an_open_phase():
    time = Time()
    clock = PhaseClock(time)
    with clock.phase("save"):
        time.pass_(1)
        assert clock.lap()["time/save_s"] == 1
        time.pass_(2)
    assert clock.lap() == {"step/seconds": 2, "time/save_s": 2, "time/other_s": 0}


def test_a_phase_that_fails_is_charged_and_left():
    time = Time()
    clock = PhaseClock(time)

    def fail():
        with clock.phase("update"):
            time.pass_(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    time.pass_(5)
    assert clock.lap() == {"step/seconds": 8, "time/other_s": 5, "time/update_s": 3}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=20))
def test_the_phases_always_add_up_to_the_step(visits):
    time = Time()
    clock = PhaseClock(time)
    for name, seconds in visits:
        with clock.phase(name), clock.phase(name * 2):
            time.pass_(seconds)
    lap = clock.lap()
    assert lap.pop("step/seconds") == pytest.approx(sum(lap.values())) == pytest.approx(time.now - 100)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-:--"), (0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (2 * 86400 + 3723, "2d 01:02:03")],
)
def test_durations_read_as_a_clock(seconds, text):
    assert clock_text(seconds) == text


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "left"), [(0, 10, 5, None), (2, None, 5, None), (2, 10, 5, 20), (10, 10, 5, 0), (12, 10, 6, 0)]
)
def test_what_is_left_follows_the_pace_so_far(done, total, elapsed, left):
    assert remaining(done, total, elapsed) == left
