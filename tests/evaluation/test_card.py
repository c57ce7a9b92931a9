"""A model card says what the run's own files say, and nothing else."""

import json
from pathlib import Path

import pytest
import yaml

from azr_nemo.errors import UserError
from azr_nemo.evaluation import results
from azr_nemo.evaluation.card import model_card, require_run
from azr_nemo.settings.compose import as_yaml
from azr_nemo.settings.schema import RunConfig


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of step 3 of a run that evaluated at its beginning, at step 3 and later."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: llama3.1\n---\n")
    config = RunConfig(recipe="mine", seed=7)
    config.model.path, config.selfplay.steps, config.model.lora.rank = str(base), 10, 8
    folder = tmp_path / "run" / "checkpoints" / "step_000003"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(as_yaml(config))
    rows = [
        {"step": step, "eval/deduction": share, "eval/deduction_low": share - 0.1, "eval/deduction_high": share + 0.1}
        for step, share in ((0, 0.25), (3, 0.5), (6, 0.75))
    ]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run" / "versions.json").write_text('{"python": "3.11.7", "torch": "2.13.0"}')
    return folder


def test_it_says_recipe_steps_seed_data_evaluation_and_licence(checkpoint):
    card = model_card(checkpoint, "out")
    about = yaml.safe_load(card.split("---")[1])
    assert (about["license"], about["datasets"], about["library_name"]) == ("llama3.1", [], "transformers")
    for line in (
        "| recipe | `mine` |", "| steps | 3 of 10 |", "| seed | 7 |", "| data | none: all tasks are the model's own |",
        "| what learnt | adapters of rank 8, merged |", "| versions | python 3.11.7, torch 2.13.0 |",
        "| deduction | 0 | 25.0% | 15.0–35.0% |", "| deduction | 3 | 50.0% | 40.0–60.0% |",
    ):  # fmt: skip
        assert line in card
    assert "75.0%" not in card  # a later step's


def test_an_evaluation_of_its_own_is_a_table_with_intervals(checkpoint, tmp_path):
    figures = {"items": 4, "size": 200, "pass@1": 0.5, "low": 0.2, "high": 0.8, "scores": {}, "group": "code"}
    results.write(tmp_path, {}, {"cruxeval_input": figures})
    assert "| cruxeval_input | 4 of 200 | 50.0% | 20.0–80.0% |" in model_card(checkpoint, "out", [tmp_path])
    with pytest.raises(UserError, match=r"has no results\.json"):
        model_card(checkpoint, "out", [tmp_path / "nowhere"])


def test_what_is_not_known_is_said(checkpoint):
    (checkpoint.parent.parent / "metrics.jsonl").unlink()
    (checkpoint.parent.parent / "versions.json").unlink()
    Path(checkpoint.parents[2] / "base" / "README.md").unlink()
    card = model_card(checkpoint, "out")
    assert yaml.safe_load(card.split("---")[1])["license"] == "other"
    assert "do not say their licence" in card
    assert "None was made in the run" in card
    assert "| versions | not recorded |" in card


def test_a_model_that_no_run_trained_has_no_card(tmp_path):
    with pytest.raises(UserError, match="--card is for a run or one of its checkpoints"):
        require_run(tmp_path)
