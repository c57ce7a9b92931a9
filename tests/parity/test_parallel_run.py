"""Whole self-play runs over two and four ranks against one process: same tasks, same rewards, same log-probabilities, same weights."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_server import ranks
from safetensors.torch import load_file
from self_play_job import LAYOUTS, STEPS

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
# Layouts of one number of ranks share a job: starting ranks is what costs time.
JOBS = {1: ["one"], 2: ["tp2", "pp2", "dp2", "tp2-sequence"], 4: ["tp2-pp2", "tp2-dp2"]}
MANY = [layout for count, layouts in JOBS.items() if count > 1 for layout in layouts]
TOLERANCE = 1e-5
# What may differ between layouts: where the time went, and how much memory a rank took.
MEASURED = ("time", "memory/", "throughput/", "step/seconds", "train/update_s", "train/refit_s")


def run(count: int, out: Path) -> None:
    for ended in ranks(HERE / "self_play_job.py", count, out, *JOBS[count], timeout=700, HF_HUB_OFFLINE="1"):
        assert ended.code == 0, ended.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run directory of a layout; its job runs when first asked for, the one process before all others."""
    out = tmp_path_factory.mktemp("runs")
    done: set[int] = set()

    def directory(layout: str) -> Path:
        count = next(number for number, layouts in JOBS.items() if layout in layouts)
        for number in sorted({1, count} - done):
            run(number, out)
            done.add(number)
        return out / layout

    return directory


def tasks(run_dir: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(run_dir / "buffer.sqlite") as database:
        return database.execute("SELECT * FROM tasks ORDER BY id").fetchall()


def metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_every_layout_is_run() -> None:
    assert sorted(LAYOUTS) == sorted(["one", *MANY])


def test_the_one_process_proposes_solves_and_learns(runs: Callable[[str], Path]) -> None:
    """Or else the comparisons below would hold for want of anything to compare."""
    steps = [row for row in metrics(runs("one")) if row["step"] > 0]
    assert len(steps) == STEPS
    assert sum(row["step"] > 0 for row in map(dict, _rows(runs("one")))) >= 3  # tasks that the model proposed
    assert any(row["solve/deduction/accuracy"] + row["solve/abduction/accuracy"] + row["solve/induction/accuracy"] > 0 for row in steps)
    before, after = load_file(runs("one").parent / "model" / "model.safetensors"), load_file(runs("one") / "learnt.safetensors")
    assert max((after[name] - tensor).abs().max() for name, tensor in before.items()) > 50 * TOLERANCE


def _rows(run_dir: Path) -> list[sqlite3.Row]:
    with sqlite3.connect(run_dir / "buffer.sqlite") as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT * FROM tasks").fetchall()


@pytest.mark.parametrize("layout", MANY)
def test_the_buffer_holds_the_same_tasks(runs: Callable[[str], Path], layout: str) -> None:
    assert tasks(runs(layout)) == tasks(runs("one"))


@pytest.mark.parametrize("layout", MANY)
def test_rewards_and_metrics_are_the_same(runs: Callable[[str], Path], layout: str) -> None:
    ours, one = metrics(runs(layout)), metrics(runs("one"))
    assert [row["step"] for row in ours] == [row["step"] for row in one]
    for mine, other in zip(ours, one, strict=True):
        expected = {name: value for name, value in other.items() if not name.startswith(MEASURED)}
        assert {name: value for name, value in mine.items() if not name.startswith(MEASURED)} == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("layout", MANY)
def test_log_probabilities_and_weights_are_the_same(runs: Callable[[str], Path], layout: str) -> None:
    ours, one = load_file(runs(layout) / "learnt.safetensors"), load_file(runs("one") / "learnt.safetensors")
    assert ours.keys() == one.keys()
    assert sum(name.startswith("logprobs/") for name in one) == STEPS
    for name, tensor in one.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
