"""Weights & Biases gets every step; a resumed run goes on under its id, and steps that are done again do not break it."""

import json
import sys

import process_trees
import pytest
from wandb_files import segments

from azr_nemo.errors import UserError
from azr_nemo.observe.metrics import MetricsLog
from azr_nemo.observe.weights_and_biases import WeightsAndBiases
from azr_nemo.settings.schema import RunConfig

wandb = pytest.importorskip("wandb")


@pytest.fixture(scope="module", autouse=True)
def service():
    """wandb's own process, which it starts for the first run of this one, ends with these tests."""
    yield
    wandb.teardown()


def config(**logging):
    made = RunConfig()
    made.logging.wandb = made.logging.wandb_offline = True
    for name, value in logging.items():
        setattr(made.logging, name, value)
    return made


def log(run_dir, steps, rewind=None, **logging):
    sink = WeightsAndBiases(run_dir, config(**logging))
    metrics = MetricsLog(run_dir, False, [sink])
    if rewind is not None:
        metrics.rewind(rewind)
    for step in steps:
        metrics.write(step, {"train/loss": step / 10, "train/entropy": float("nan")})
    metrics.close()
    metrics.close()
    return sink.run_id


@pytest.mark.slow
def test_a_resumed_run_goes_on_under_its_id_and_its_lines_never_go_back(tmp_path):
    first = log(tmp_path, (0, 1, 2, 3))
    assert log(tmp_path, (2, 3, 4), rewind=1) == first
    (id_before, before), (id_after, after) = segments(tmp_path)
    assert (id_before, id_after) == (first, first)
    assert [line["step"] for line in before + after] == [0, 1, 2, 3, 2, 3, 4]
    assert [line["_line"] for line in before + after] == list(range(7))
    assert before[3]["train/loss"] == 0.3
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": first, "lines": 7}


def test_an_id_that_is_given_wins_over_the_one_that_is_kept(tmp_path):
    log(tmp_path, (0, 1))
    assert log(tmp_path, (2,), wandb_run_id="mine") == "mine"
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": "mine", "lines": 1}
    assert log(tmp_path, (3,)) == "mine"


def test_a_package_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package wandb: pip install 'azr-nemo\[wandb\]', or set logging\.wandb=false"):
        WeightsAndBiases(tmp_path, config())


@pytest.mark.slow
def test_it_is_imported_only_when_it_is_on():
    code = "import sys, azr_nemo.trainer.reporting; sys.exit('wandb' in sys.modules)"
    assert process_trees.run([sys.executable, "-c", code], timeout=240).returncode == 0


def test_a_service_that_refuses_names_the_ways_out(tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(
        UserError, match=r"No API key configured\. Use.*wandb login.*logging\.wandb_offline=true.*logging\.wandb=false"
    ) as caught:
        WeightsAndBiases(tmp_path, config(wandb_offline=False))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "wandb.json").exists()


@pytest.mark.parametrize("text", ["{broken", "[]", '{"id": 3, "lines": 1}', '{"id": "a"}'])
def test_a_damaged_note_of_the_id_is_a_sentence(tmp_path, text):
    (tmp_path / "wandb.json").write_text(text)
    with pytest.raises(UserError, match=r"wandb\.json is damaged: delete it.*logging\.wandb_run_id"):
        WeightsAndBiases(tmp_path, config())
