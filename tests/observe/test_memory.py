"""Peak memory is read between two points, and never too small."""

import mmap
from pathlib import Path

import pytest

from azr_nemo.observe import timing
from azr_nemo.observe.timing import MemoryMeter, PhaseClock

HELD = 300 * 2**20


def hold_for_a_moment() -> None:
    # Pages of its own: what the process allocates may come out of memory that it freed before.
    with mmap.mmap(-1, HELD) as held:
        for page in range(0, HELD, mmap.PAGESIZE):
            held[page] = 1


def test_a_peak_belongs_to_the_lap_in_which_it_was():
    meter = MemoryMeter()
    before = meter.lap()["rss"]
    hold_for_a_moment()
    assert meter.lap()["rss"] == pytest.approx(before + HELD / 2**30, abs=0.1)
    assert meter.lap()["rss"] < before + 0.15


def test_without_a_way_to_set_the_peak_back_it_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "CLEAR", tmp_path / "absent" / "clear_refs")
    monkeypatch.setattr(timing, "STATUS", Path("/nowhere"))
    meter = MemoryMeter()
    hold_for_a_moment()
    peak = meter.lap()["rss"]
    assert peak > HELD / 2**30
    assert meter.lap()["rss"] >= peak


def test_each_phase_has_its_own_peak_and_the_run_the_highest():
    peaks = iter([1.0, 5.0, 2.0, 1.5, 1.0])
    clock = PhaseClock(memory=lambda: {"rss": next(peaks)})
    with clock.phase("propose"):
        with clock.phase("execute", peaks=False):  # belongs to the phase around it
            pass
    with clock.phase("update"):
        found = clock.lap()
    assert {name: value for name, value in found.items() if name.startswith("memory/")} == {
        "memory/other_rss_gib": 2.0,
        "memory/propose_rss_gib": 5.0,
        "memory/update_rss_gib": 1.5,
        "memory/peak_rss_gib": 5.0,
    }
