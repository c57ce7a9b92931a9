"""A whole run with everything on that is logged, and resumed: each metric is on the page, each log takes the steps that are done again."""

import json

import pytest
import tiny_run
from metrics_page import rows, unlisted
from wandb_files import segments

from azr_nemo.observe.alarms import ALARMS
from azr_nemo.observe.metrics import read_metrics

pytestmark = pytest.mark.slow
ON = [
    "logging.wandb=true",
    "logging.wandb_offline=true",
    "logging.samples_every=1",
    "logging.console=json",
    "eval.every=1",
    "reward.intrinsic.halstead.coef=0.1",
]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of two steps, then taken up after its first for two more. Its directory, and the events that it printed."""
    pytest.importorskip("wandb")
    run_dir = tmp_path_factory.mktemp("observed") / "run"
    outputs = [tiny_run.finish(tiny_run.start(run_dir, *ON, "selfplay.steps=2"))]
    again = f"resume={run_dir}/checkpoints/step_000001"
    outputs.append(tiny_run.finish(tiny_run.start(run_dir, *ON, again, "selfplay.steps=3")))
    return run_dir, [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith('{"event"')]


def test_every_metric_of_a_real_run_is_on_the_page(resumed):
    run_dir, _ = resumed
    names = {name for row in read_metrics(run_dir / "metrics.jsonl") for name in row} - {"step", "time"}
    assert len(names) > 60
    assert unlisted(names) == []


def test_the_page_says_unit_meaning_and_the_originals_name_of_each():
    assert [row for row in rows() if len(row) != (3 if row[0].startswith("`alarm/") else 4) or not row[-1]] == []


def test_each_step_is_logged_once_and_has_every_alarm(resumed):
    run_dir, _ = resumed
    lines = read_metrics(run_dir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert "overview/held_out" in lines[0]
    for row in lines[1:]:
        assert {row[f"alarm/{name}"] for name in ALARMS} <= {0.0, 1.0}
        assert row["overview/alarms"] == sum(row[f"alarm/{name}"] for name in ALARMS)


def test_weights_and_biases_gets_the_steps_that_are_done_again_under_the_same_id(resumed):
    run_dir, events = resumed
    (first, before), (second, after) = segments(run_dir)
    assert first == second == json.loads((run_dir / "wandb.json").read_text())["id"]
    assert [line["step"] for line in before + after] == [0, 1, 2, 2, 3]
    assert [line["_line"] for line in before + after] == [0, 1, 2, 3, 4]
    assert any(event["event"] == "note" and "Weights & Biases: " in event["text"] and first in event["text"] for event in events)


def test_three_sampled_tasks_are_shown_with_their_outcome(resumed):
    _, events = resumed
    shown = [(event["type"], event["outcome"]) for event in events if event["event"] == "sample"]
    assert [kind for kind, _ in shown] == ["deduction", "abduction", "induction"] * 4  # steps 1, 2, and 2 and 3 again
    assert all(outcome for _, outcome in shown)


def test_long_work_has_a_phase_of_its_own_and_says_how_much_there_is(resumed):
    _, events = resumed
    ended = {event["name"]: event for event in events if event["event"] == "phase" and event["state"] == "ended"}
    assert ended["seed files"]["done"] == ended["seed files"]["total"] == 24
    assert ended["held-out tasks"]["done"] == ended["held-out tasks"]["total"] > 0
    assert {"load model", "Weights & Biases", "seeding", "evaluate", "save"} <= set(ended)


def test_a_step_that_is_done_again_shows_the_same_samples(resumed):
    _, events = resumed
    samples = [event["text"] for event in events if event["event"] == "sample"]
    assert samples[3:6] == samples[6:9]
