"""benchmarks/zero_data.py: what it says of all seeds together, and what it does again when it is started again."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from azr_nemo.settings.compose import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))  # as the script itself finds the others
import zero_data

sys.path.pop(0)

ITEMS = 8


def judged(folder: Path, right: set[int], unformed: set[int] = frozenset(), echoes: set[int] = frozenset()) -> Path:
    """Graded answers to two suites of ITEMS items: the first has only right answers of `right`, the second the same and says which repeat the output."""
    folder.mkdir(parents=True)
    for suite in ("outputs", "inputs"):
        rows = [
            {
                "id": str(item), "sample": 0, "finished": True, "right": item in right,
                "reason": "right" if item in right else "error" if item in unformed else "wrong_value",
                "parts": {"without_echo": item in right - echoes} if suite == "inputs" else {},
            }
            for item in range(ITEMS)
        ]  # fmt: skip
        (folder / f"{suite}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def cells(text: str, suite: str, name: str) -> list[str]:
    (line,) = [line for line in text.split(f"**{suite}**")[1].split("**")[0].splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def text(tmp_path: Path) -> str:
    untuned = {0: judged(tmp_path / "0", {0, 1}, unformed={4, 5}, echoes={0}), 4: judged(tmp_path / "4", {0, 1, 2, 6})}
    # Both seeds win two by form; the first wins one by substance besides, the second loses one.
    selfplay = [judged(tmp_path / "a1", {0, 1, 2, 4, 5}, echoes={0, 4, 5}), judged(tmp_path / "a2", {0, 4, 5}, echoes={4})]
    shuffled = [judged(tmp_path / "b1", {0, 1}), judged(tmp_path / "b2", {0})]
    return zero_data.report(untuned, {"selfplay": selfplay, "shuffled": shuffled}, ["outputs", "inputs"])


def test_seeds_are_one_figure_and_each_stands_beside_it(text: str) -> None:
    accuracy, minus, form, substance, each = cells(text, "outputs", "selfplay")[1:]
    assert accuracy == "0.500"
    assert minus.startswith("+0.250 [")
    assert (form, each) == ("+0.250", "+0.375; +0.125")
    assert substance.startswith("+0.000 [-"), "one seed's item against the other's"


def test_what_repeats_the_output_is_wrong_in_a_table_of_its_own_where_inputs_are_asked_for(text: str) -> None:
    assert cells(text, "inputs without echoes", "untuned")[1] == "0.125"
    accuracy, minus, form, _, each = cells(text, "inputs without echoes", "selfplay")[1:]
    assert accuracy == "0.250"
    assert minus.startswith("+0.125 [")
    assert (form, each) == ("+0.062", "+0.125; +0.125")
    assert "**outputs without echoes**" not in text
    assert cells(text, "all without echoes", "selfplay")[1] == "0.375"


def test_the_first_arm_is_set_beside_every_control_and_the_best_untuned_prompt(text: str) -> None:
    (said,) = [line for line in text.split("**outputs**")[1].split("**")[0].splitlines() if line.startswith("selfplay minus: ")]
    assert "the best untuned prompt +0.000 [" in said
    assert "shuffled +0.312 [" in said


def test_all_suites_together_are_their_mean(text: str) -> None:
    assert cells(text, "all", "selfplay")[1] == "0.500"
    assert cells(text, "all", "selfplay")[2].startswith("+0.250 [")


def test_what_became_of_the_proposals_is_the_first_step_beside_the_last() -> None:
    run = [
        {"step": 0},
        {"step": 1, "train/entropy": 1.0, "propose/deduction/lines": 4.0, "propose/abduction/lines": 6.0},
        {"step": 2, "train/entropy": 0.5, "propose/deduction/lines": 2.0},
    ]
    (line,) = [line for line in zero_data.narrowing({"selfplay": [run]}).splitlines() if line.startswith("| selfplay")]
    assert line.split("|")[2:6] == [" 1.00 → 0.50 ", "  ", "  ", " 5.00 → 2.00 "]


def arguments(out: Path) -> Namespace:
    return Namespace(out=out, steps=4, recipe="tiny-1n0g-megatron", overrides=["selfplay.batch_size=2"])


def test_a_finished_arm_is_not_run_again_and_a_shorter_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(zero_data, "ran", lambda command, log: asked.append(command))
    (tmp_path / "selfplay-1").mkdir()
    (tmp_path / "selfplay-1" / "outcome").write_text("done 4\n")
    zero_data.trained(arguments(tmp_path), "selfplay", 1, tmp_path / "seeds-1.jsonl")
    assert not asked
    (tmp_path / "selfplay-1" / "outcome").write_text("done 2\n")
    zero_data.trained(arguments(tmp_path), "selfplay", 1, tmp_path / "seeds-1.jsonl")
    (command,) = asked
    assert command[command.index("--arm") + 1] == "selfplay"
    assert {"seed=1", "selfplay.steps=4", "selfplay.batch_size=2", f"run_dir={tmp_path / 'selfplay-1'}"} < set(command)
    assert f"data.seed_files=[{(tmp_path / 'seeds-1.jsonl').absolute()}]" in command, "all arms of a seed begin with the same tasks"


def test_tasks_are_proposed_once_a_seed_and_kept_only_when_they_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def proposed(command: list[str], log: Path) -> None:
        asked.append(command)
        Path(command[-1]).write_text("{}\n")

    monkeypatch.setattr(zero_data, "ran", proposed)
    for _ in range(2):
        assert zero_data.seeded(arguments(tmp_path), 3).read_text() == "{}\n"
    ((*_, option, part),) = asked
    assert (option, Path(part).name) == ("--out", "seeds-3.part")


def test_a_run_that_fails_ends_the_experiment_with_the_place_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"selfplay-1 ended with exit code 3, see .*selfplay-1\.log"):
        zero_data.ran([sys.executable, "-c", "print('last words'); raise SystemExit(3)"], tmp_path / "selfplay-1.log")
    assert "last words" in (tmp_path / "selfplay-1.log").read_text()
