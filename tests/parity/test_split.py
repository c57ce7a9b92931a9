"""`placement=split`: ranks that only sample draw what ranks that do both would have drawn, also beside an update, and one that dies ends the run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lost_rank_job import WATCHDOG_S
from run_server import shared

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcome(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    out = tmp_path_factory.mktemp("split")
    ended = shared().start([tiny_model, out], script=HERE / "split_job.py", TORCH_CPP_LOG_LEVEL="ERROR").wait(500)
    assert ended.code == 0, ended.output
    return lambda case: json.loads((out / f"{case}.json").read_text())


def test_a_sampler_draws_what_one_process_draws_before_and_after_an_update(outcome: Callable[[str], dict[str, Any]]) -> None:
    whole = outcome("whole")
    assert whole["codes"] == {"0": 0, "1": 0, "None": 0}, whole["said"]
    first, second = whole["found"]["0"]
    assert [first, second] == whole["found"]["None"]
    assert [{row[3] for group in drawn for row in group} for drawn in (first, second)] == [{0}, {1}]


def test_what_is_sampled_beside_an_update_has_the_weights_from_before_it(outcome: Callable[[str], dict[str, Any]]) -> None:
    beside = outcome("beside")
    assert beside["codes"] == {"0": 0, "1": 0}, beside["said"]
    assert [{row[3] for group in drawn for row in group} for drawn in beside["found"]["0"]] == [{0}, {0}, {1}]
    assert beside["found"]["0"][2] == outcome("whole")["found"]["0"][1]


def test_a_sampler_that_dies_ends_the_run_in_a_sentence(outcome: Callable[[str], dict[str, Any]]) -> None:
    killed = outcome("killed")
    assert killed["codes"] == {"0": 2, "1": -9}
    assert killed["seconds"] < WATCHDOG_S
    assert "rank 1 died in the phase `generate`" in killed["said"]["0"]
    assert "Traceback" not in killed["said"]["0"]


def test_weights_reach_a_sampler_that_is_drawing_and_its_samples_say_so(outcome: Callable[[str], dict[str, Any]]) -> None:
    between = outcome("between")
    assert between["codes"] == {"0": 0, "1": 0}, between["said"]
    meanwhile, after = between["found"]["0"]
    assert [(row[3], row[4]) for group in meanwhile for row in group] == [(0, [[1, 1]])] * 9
    assert [(row[3], row[4]) for group in after for row in group] == [(1, [])] * 9


def test_a_sampler_that_fails_while_it_listens_for_weights_ends_the_run_in_its_sentence(outcome: Callable[[str], dict[str, Any]]) -> None:
    raised = outcome("raised")
    assert raised["codes"] == {"0": 2, "1": 2}
    assert raised["seconds"] < WATCHDOG_S
    for said in raised["said"].values():
        assert "sampler rank 1 failed in the phase `generate`: the sampler's own mistake" in said
        assert "Traceback" not in said
