"""How threads wait for each other: told to libgomp before torch loads it, by what else the machine does."""

import os
import sys
import time
from pathlib import Path

import process_trees
import pytest

from azr_nemo.cli import waiting

TORCH_IS_LOADED_LATER = """
import ctypes, importlib.util, sys
import azr_nemo.cli, azr_nemo.cli.waiting
azr_nemo.cli.waiting.choose_waiting()
assert "torch" not in sys.modules
ctypes.CDLL(importlib.util.find_spec("torch").submodule_search_locations[0] + "/lib/libgomp.so.1")
"""


def chosen(monkeypatch: pytest.MonkeyPatch, busy: float, **environment: str) -> dict[str, str]:
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(waiting, "busy_cores", lambda seconds: busy)
    waiting.choose_waiting()
    return {name: value for name, value in environment.items() if name != "LOCAL_WORLD_SIZE"}


def test_threads_spin_briefly_on_an_idle_machine_and_sleep_on_one_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, busy=0.1) == {"GOMP_SPINCOUNT": "10000"}
    assert chosen(monkeypatch, busy=1.0) == {"OMP_WAIT_POLICY": "passive"}


def test_ranks_that_begin_together_do_not_take_each_other_for_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, busy=2.0, LOCAL_WORLD_SIZE="2") == {"GOMP_SPINCOUNT": "10000"}


@pytest.mark.parametrize("told", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_what_the_user_says_stays(monkeypatch: pytest.MonkeyPatch, told: dict[str, str]) -> None:
    assert chosen(monkeypatch, busy=1.0, **told) == told


def test_others_work_is_counted_in_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(waiting, "CPU_TIMES", tmp_path / "stat")
    ticks = os.sysconf("SC_CLK_TCK")

    def work(seconds: float) -> None:
        (tmp_path / "stat").write_text(f"cpu  {500 + int(seconds * ticks)} 20 30 9999 7 0 5 0 0 0\ncpu0 1 2 3\n")

    (tmp_path / "stat").write_text("cpu  500 20 30 4000 7 0 5 0 0 0\n")
    monkeypatch.setattr(time, "sleep", lambda seconds: work(1.5 * seconds))
    assert waiting.busy_cores(2.0) == 1.5
    (tmp_path / "stat").write_text("nothing of the kind")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert waiting.busy_cores(2.0) == 0


def test_libgomp_hears_of_it() -> None:
    command = ["env", "-uOMP_WAIT_POLICY", "LOCAL_WORLD_SIZE=2", "OMP_DISPLAY_ENV=verbose", sys.executable, "-c", TORCH_IS_LOADED_LATER]
    assert "GOMP_SPINCOUNT = '10000'" in process_trees.run(command, timeout=240, check=True).stderr
