"""benchmarks/learning_statistics.py: what of a gain on inputs is the output written down again, and what became of a run's proposals."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from azr_nemo.settings.compose import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))  # as the scripts themselves find the others
from learning_statistics import echoes, figure, narrowing, read_answers

sys.path.pop(0)

Told = tuple[bool, bool]  # of an input: right, an echo


def answers(path: Path, inputs: list[Told], outputs: list[bool], echo: bool = True) -> Path:
    """Of one program for each of the inputs: an input, an output and an induction task, which is never solved."""
    rows: list[dict[str, Any]] = []
    for number, ((right, repeats), output) in enumerate(zip(inputs, outputs, strict=True)):
        for kind, greedy, said in (("abduction", right, repeats), ("deduction", output, False), ("induction", False, False)):
            row = {
                "type": kind,
                "program": f"p{number}",
                "greedy": float(greedy),
                "sampled": None,
                "reason": "right" if greedy else "wrong_value",
            }
            rows.append({**row, "echo": said} if echo else row)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def warm(tmp_path: Path) -> Path:
    return answers(tmp_path / "warm.jsonl", [(True, False), (True, True), (False, False), (False, False)], [True, False, False, False])


def test_a_gain_that_is_echoes_is_none_once_they_are_left_out(tmp_path: Path, warm: Path) -> None:
    after = answers(tmp_path / "a.jsonl", [(True, True)] * 3 + [(False, True)], [True, False, False, False])
    first, second = echoes(warm, {"selfplay": [after]}).splitlines()[2:]
    assert first == "| warm start | 0.250 | 0.500 | 0.250 | 0.167 |  |"
    assert second.startswith("| selfplay | 1.000 | 0.750 | 0.000 | 0.083 | -0.083 [")


def test_seeds_are_averaged_program_by_program(tmp_path: Path, warm: Path) -> None:
    alike = answers(tmp_path / "b.jsonl", [(True, False)] * 4, [True, False, False, False])
    line = echoes(warm, {"selfplay": [warm, alike]}).splitlines()[-1]
    assert line.startswith("| selfplay | 0.125 | 0.750 | 0.625 | 0.292 | +0.125 [")


def test_answers_that_were_kept_without_it_give_no_table(tmp_path: Path, warm: Path) -> None:
    old = answers(tmp_path / "old.jsonl", [(True, False)] * 4, [True] * 4, echo=False)
    assert echoes(warm, {"selfplay": [old]}) == ""


def test_greedy_answers_alone_can_be_read(warm: Path) -> None:
    scores = read_answers(warm)
    assert scores["greedy"]["all"].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert all(value != value for value in scores["sampled"]["all"])  # nan


def test_what_became_of_a_run_is_its_first_tenth_beside_its_last() -> None:
    run = [{"step": step, "train/entropy": float(step)} for step in range(41)]
    (line,) = [line for line in narrowing({"selfplay": [run]}).splitlines() if line.startswith("| selfplay")]
    assert line.split("|")[2] == " 2.50 → 38.50 "


@pytest.mark.parametrize(("held_out", "first"), [(True, "held-out accuracy (greedy)"), (False, "entropy")])
def test_the_figure_shows_entropy_where_held_out_programs_were_asked_apart(tmp_path: Path, monkeypatch, held_out: bool, first: str) -> None:
    from matplotlib import pyplot

    drawn: list[Any] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    measured = {"eval/deduction": 0.5} if held_out else {}
    figure({"selfplay": [[{"step": step, "train/entropy": 1.0, **measured} for step in (1, 2)]]}, tmp_path / "figure.png")
    (picture,) = drawn
    assert picture.axes[0].get_title() == first
    assert picture.axes[0].lines[0].get_xdata().tolist() == [1, 2]
    assert (tmp_path / "figure.png").stat().st_size > 0
