"""A rank that dies, fails or hangs ends the whole job within `runtime.watchdog_s`, with one sentence that names it and its phase."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lost_rank_job import CASES, RANKS, WATCHDOG_S
from run_server import shared

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcome(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What became of a case. All run in one process that forks their ranks: importing is what takes time."""
    out = tmp_path_factory.mktemp("lost")
    ended = shared().start([tiny_model, out], script=HERE / "lost_rank_job.py", TORCH_CPP_LOG_LEVEL="ERROR").wait(500)
    assert ended.code == 0, ended.output
    return lambda case: json.loads((out / f"{case}.json").read_text())


def ends(outcome: dict[str, Any], victim: int, victims_code: int, sentence: str) -> None:
    """Every process is gone in time, the victim as it happened to it, and all others with the sentence and exit code 2."""
    assert outcome["codes"] == {str(rank): victims_code if rank == victim else 2 for rank in range(RANKS)}, outcome
    assert outcome["seconds"] < WATCHDOG_S + 15  # the latter for starting, on a machine at work
    for rank in range(RANKS):
        said = outcome["said"][str(rank)]
        assert "Traceback" not in said
        if rank != victim or victims_code == 2:
            assert said.count("azr-nemo:") == 1
            assert sentence in said


@pytest.mark.parametrize(("case", "victim", "phase"), [("killed-generating", 1, "generate"), ("killed-updating", 2, "update")])
def test_a_rank_that_is_killed_is_named_at_once(outcome: Callable[[str], dict[str, Any]], case: str, victim: int, phase: str) -> None:
    ends(outcome(case), victim, -9, f"rank {victim} died in the phase `{phase}`")
    assert outcome(case)["seconds"] < WATCHDOG_S


def test_the_others_end_when_rank_0_is_killed_and_the_store_with_it(outcome: Callable[[str], dict[str, Any]]) -> None:
    ends(outcome("first-killed-updating"), 0, -9, "rank 0 died in the phase `")


@pytest.mark.parametrize(
    ("case", "victim", "phase"),
    [("raised-generating", 1, "generate"), ("raised-saving", 2, "save"), ("first-raised-updating", 0, "update")],
)
def test_an_error_in_one_rank_is_every_ranks_last_word(
    outcome: Callable[[str], dict[str, Any]], case: str, victim: int, phase: str
) -> None:
    ends(outcome(case), victim, 2, f"rank {victim} failed in the phase `{phase}`: the part broke")


def test_a_stopped_rank_is_named_and_none_is_left(outcome: Callable[[str], dict[str, Any]]) -> None:
    ends(outcome("stopped-updating"), 1, -9, "rank 1 fell silent in the phase `update`")
    ends(outcome("first-stopped-generating"), 0, -9, "rank 0 is stopped in the phase `generate`")


def test_a_rank_that_runs_in_circles_is_named(outcome: Callable[[str], dict[str, Any]]) -> None:
    ends(outcome("looping-generating"), 2, 2, "rank 2 made no progress in the phase `generate` for 17 s (runtime.watchdog_s)")
    ends(outcome("first-looping-between"), 0, 2, "rank 0 made no progress in the phase `its own work between commands`")


def test_a_job_that_was_suspended_as_a_whole_goes_on(outcome: Callable[[str], dict[str, Any]]) -> None:
    assert outcome("suspended")["codes"] == {str(rank): 0 for rank in range(RANKS)}, outcome("suspended")


def test_every_case_is_told_of() -> None:
    source = Path(__file__).read_text()
    assert all(f'"{name}"' in source for group in CASES for name in group)
