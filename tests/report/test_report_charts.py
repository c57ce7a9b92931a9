"""Which charts and words a report has, and that its JSON holds whatever a model wrote as mere text."""

import json
import math
import re

import plotly.graph_objects as go
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.observe.report.blocks import blocks, differences, embeddable
from azr_nemo.observe.report.charts import held_out, sections
from azr_nemo.observe.report.figures import verdicts
from azr_nemo.observe.report.read import Reader


def read(directory, name="run"):
    return Reader(directory, name).read()


def charts(*runs):
    pinned = held_out(runs)
    return {chart["id"]: chart for chart in [*([pinned] if pinned else []), *(c for section in sections(runs) for c in section["charts"])]}


def test_every_chart_is_one_that_plotly_accepts(small_run, tmp_path):
    synthetic.metrics(
        tmp_path / "other", 60, **{"intrinsic/deduction/complexity": 0.1, "refused/syntax": 2.0, "memory/propose_gpu_gib": 1.0}
    )
    for runs in ([read(small_run)], [read(small_run, "a"), read(tmp_path / "other", "b")]):
        for chart in charts(*runs).values():
            assert go.Figure(data=chart["data"], layout=chart["layout"]).data, chart["id"]


def test_held_out_accuracy_is_drawn_once_and_is_in_no_section(small_run):
    run = read(small_run)
    assert held_out([run])["title"] == "Held-out accuracy"
    assert "Held-out accuracy" not in [chart["title"] for section in sections([run]) for chart in section["charts"]]
    assert blocks([run])["overview"].count('"Held-out accuracy"') == 1


def test_a_run_that_measured_nothing_held_out_has_no_such_chart(tmp_path):
    synthetic.metrics(tmp_path, 3, held_out=False)
    assert held_out([read(tmp_path)]) is None


def test_the_first_section_shows_own_tasks_novelty_and_length(small_run):
    first = sections([read(small_run)])[0]
    assert [chart["title"] for chart in first["charts"]] == ["Accuracy on its own tasks", "Novelty", "Program length"]


def test_held_out_accuracy_is_drawn_with_its_interval(small_run):
    trace = charts(read(small_run))["held-out"]["data"][0]
    assert trace["x"] == [0, 5, 10]
    assert trace["y"] == pytest.approx([0.2, 0.45, 0.7])
    assert trace["error_y"]["array"] == pytest.approx([0.1] * 3)
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.1] * 3)


def test_an_interval_that_is_missing_leaves_a_point_without_bars(small_run):
    rows = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    del rows[5]["eval/deduction_low"]
    (small_run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bars = charts(read(small_run))["held-out"]["data"][0]["error_y"]
    assert bars["arrayminus"][1] is None
    assert bars["arrayminus"][0] == pytest.approx(0.1)


def test_a_gap_is_drawn_as_one(small_run):
    rows = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    rows[4]["solve/deduction/reward"] = None
    del rows[6]["solve/deduction/reward"]
    (small_run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trace = charts(read(small_run))["rewards-solve"]["data"][0]
    assert [step for step, value in zip(trace["x"], trace["y"], strict=True) if value is None] == [4, 6]
    assert trace["connectgaps"] is False


def test_a_long_run_has_its_steps_thin_and_a_mean_thick(tmp_path):
    synthetic.metrics(tmp_path, 100)
    thin, thick = charts(read(tmp_path))["update-loss"]["data"]
    assert thin["opacity"] < 1
    assert "mean of 5 steps" in thick["name"]


def test_solve_rates_are_shares_of_the_tasks_of_a_step(tmp_path):
    synthetic.metrics(tmp_path, 2)
    rates = [(0, 4), (1, 5), (4, 4), (2, 4)]
    synthetic.tasks(tmp_path / "buffer.sqlite", [{"id": n + 1, "solved": s, "attempts": a} for n, (s, a) in enumerate(rates)])
    trace = charts(read(tmp_path))["rates-0-deduction"]["data"][0]
    assert trace["x"] == ["1"]
    assert [(label, row[0]) for label, row in zip(trace["y"], trace["z"], strict=True) if row[0]] == [
        ("0 %", 0.25),
        ("1–20 %", 0.25),
        ("41–60 %", 0.25),
        ("100 %", 0.25),
    ]


def test_the_buffers_diversity_is_the_share_of_programs_that_differ(tmp_path):
    synthetic.metrics(tmp_path, 3)
    rows = [{"id": 1, "program_hash": "a", "step": 0}, {"id": 2, "program_hash": "a", "step": 1}, {"id": 3, "program_hash": "b", "step": 2}]
    synthetic.tasks(tmp_path / "buffer.sqlite", rows)
    (trace,) = charts(read(tmp_path))["buffer-programs"]["data"]
    assert trace["x"] == [0, 1, 2]
    assert trace["y"] == pytest.approx([1.0, 0.5, 2 / 3])


def test_runs_are_told_apart_by_colour_and_types_by_dashes(small_run):
    data = charts(read(small_run, "a"), read(small_run, "b"))["held-out"]["data"]
    assert len({trace["line"]["color"] for trace in data}) == 2
    assert len({trace["line"]["dash"] for trace in data}) == 3
    assert {trace["meta"]["run"] for trace in data} == {0, 1}


def verdict_of(tmp_path, first, last):
    rows = []
    for step, (value, low, high) in enumerate((first, last)):
        rows.append(
            {
                "step": step,
                "time": 1.0,
                "step/seconds": 1.0,
                "eval/deduction": value,
                "eval/deduction_low": low,
                "eval/deduction_high": high,
            }
        )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return verdicts(read(tmp_path))[0]["change"]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), "rose"),
        ((0.5, 0.4, 0.6), (0.2, 0.1, 0.3), "fell"),
        ((0.2, 0.1, 0.3), (0.29, 0.19, 0.39), "no clear change"),
        ((0.2, 0.1, 0.3), (0.35, 0.19, 0.45), "no clear change"),  # the later interval still reaches the earlier value
    ],
)
def test_a_change_is_named_only_when_neither_interval_reaches_the_other_value(tmp_path, first, last, said):
    assert verdict_of(tmp_path, first, last) == said


def test_a_run_that_measured_nothing_held_out_says_so(tmp_path):
    synthetic.metrics(tmp_path, 3, held_out=False)
    overview = json.loads(blocks([read(tmp_path)])["overview"])
    assert "Held-out accuracy was not measured" in overview["runs"][0]["notes"][0]
    assert {row["change"] for row in overview["runs"][0]["verdicts"]} == {"not measured"}


def test_alarms_that_were_up_are_said_first(tmp_path):
    synthetic.metrics(tmp_path, 4, **{"alarm/diversity": 1.0, "alarm/entropy": 0.0})
    notes = json.loads(blocks([read(tmp_path)])["overview"])["runs"][0]["notes"]
    assert notes[0] == "alarm/diversity was up at 4 of 4 steps, first at step 1."
    assert not any("alarm/entropy" in note for note in notes)


@given(st.recursive(st.text() | st.floats() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_embedded_json_is_the_same_data_and_nothing_that_markup_could_be_made_of(content):
    text = embeddable(content)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert text.isascii()

    def finite(value):
        if isinstance(value, list):
            return [finite(item) for item in value]
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    assert json.loads(text) == finite(content)


def test_settings_that_differ_are_listed_once_each_and_run_dir_never():
    one, two = "run_dir: a\nseed: 1\noptim:\n  lr: 0.1\n", "run_dir: b\nseed: 2\noptim:\n  lr: 0.1\n"
    assert differences([one, two]) == [["seed", "1", "2"]]
    assert differences([one, ""]) == [["seed", "1", ""], ["optim.lr", "0.1", ""]]
    assert differences([one]) == []
    assert differences([one, "a: [unfinished"]) == [["seed", "1", ""], ["optim.lr", "0.1", ""]]


def test_answers_that_are_too_many_are_cut_and_the_page_says_so(small_run, monkeypatch):
    synthetic.rollouts(small_run, 3, [{"task": 2, "completion": "x" * 3000} for _ in range(8)])
    monkeypatch.setattr("azr_nemo.observe.report.blocks.ANSWERS", 10_000)
    made = blocks([read(small_run)])
    notes = json.loads(made["overview"])["runs"][0]["notes"]
    assert any("each is cut to 1,000 characters" in note for note in notes)
    assert max(len(answer["text"]) for answer in json.loads(made["answers-0-0"])["2"]["answers"]) < 1100


def test_tasks_beyond_what_a_page_can_hold_are_left_out_oldest_first(small_run, monkeypatch):
    monkeypatch.setattr("azr_nemo.observe.report.blocks.TASKS", 2)
    made = blocks([read(small_run)])
    assert [task["id"] for task in json.loads(made["tasks-0"])] == [2, 3]
    assert "Of 3 tasks the newest 2 are shown." in json.loads(made["overview"])["runs"][0]["notes"]
