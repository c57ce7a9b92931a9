"""What is read of a run's directory, and what is said when something of it is missing."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import process_trees
import pytest
import synthetic

from azr_nemo.errors import UserError
from azr_nemo.observe.report.attempts import LONGEST, SHOWN, AttemptFiles, shortened
from azr_nemo.observe.report.read import Reader, Series, names, series_of, thinned


def read(directory: Path):
    return Reader(directory, "run").read()


def test_a_directory_that_is_no_run_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl: expected the directory of a run"):
        read(tmp_path)


def test_a_run_without_a_step_is_a_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 0, "time": 1.0, "eval/deduction": 0.5}) + "\n")
    with pytest.raises(UserError, match="has not finished a step yet"):
        read(tmp_path)


def test_metrics_alone_make_a_report_that_says_what_is_missing(tmp_path):
    synthetic.metrics(tmp_path, 3)
    run = read(tmp_path)
    assert run.last_step == 3
    assert run.tasks == []
    assert "There is no task buffer" in " ".join(run.notes)
    assert "There are no rollouts" in " ".join(run.notes)
    assert "no checkpoint with a configuration" in " ".join(run.notes)
    assert "not recorded the versions" in " ".join(run.notes)


def test_reading_needs_no_torch_and_leaves_nothing_behind_but_what_sqlite_shares_with_a_writer(small_run):
    before = sorted(path.name for path in small_run.rglob("*"))
    code = (
        f"import sys; from pathlib import Path; from azr_nemo.observe.report.read import Reader; run = Reader(Path({str(small_run)!r}), 'run').read(); "
        "assert len(run.tasks) == 3; sys.exit('torch' in sys.modules)"
    )
    assert process_trees.run([sys.executable, "-c", code], timeout=240).returncode == 0
    after = [path.name for path in small_run.rglob("*")]
    assert sorted(name for name in after if not name.endswith(("-wal", "-shm"))) == before


def test_missing_and_nan_values_are_gaps():
    nan = None  # as read_metrics gives what was not finite
    rows = {1: {"step/seconds": 1.0, "a": 1.0, "b": nan}, 2: {"step/seconds": 1.0, "b": nan}, 3: {"step/seconds": 1.0, "a": 3.0, "b": nan}}
    series = series_of(rows)
    assert series["a"] == Series([1, 2, 3], [1.0, None, 3.0])
    assert "b" not in series, "a metric that never had a value is none"


def test_held_out_accuracy_is_one_line_over_the_steps_that_do_not_measure_it():
    rows = {step: {"step/seconds": 1.0} | ({"eval/deduction": 0.5} if step % 2 == 0 else {}) for step in range(5)}
    assert series_of(rows)["eval/deduction"] == Series([0, 2, 4], [0.5, 0.5, 0.5])


def test_a_long_series_is_drawn_by_means_and_a_gap_stays_one():
    series = thinned(Series([float(n) for n in range(10)], [1.0, 3.0, None, None, *[5.0] * 6]), points=5)
    assert series == Series([0.5, 2.5, 4.5, 6.5, 8.5], [2.0, None, 5.0, 5.0, 5.0])


def test_tasks_are_read_while_the_run_writes_them(small_run):
    with closing(synthetic.wal(small_run / "buffer.sqlite")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM tasks WHERE id = 1")
        assert [task.id for task in read(small_run).tasks] == [1, 2, 3], "what is not committed is not seen"
        writer.execute("COMMIT")
        assert [task.id for task in read(small_run).tasks] == [2, 3]


def test_a_damaged_buffer_is_made_up_for_by_the_latest_checkpoint(small_run):
    (small_run / "buffer.sqlite").rename(small_run / "whole")
    synthetic.damage(small_run / "buffer.sqlite")
    for step, ids in ((1, [1]), (2, [1, 2])):
        folder = small_run / "checkpoints" / f"step_{step:06d}"
        synthetic.tasks(folder / "buffer.sqlite", [{"id": id} for id in ids])
        with closing(sqlite3.connect(folder / "buffer.sqlite")) as database:
            database.execute("PRAGMA journal_mode = DELETE")
        (folder / "config.yaml").write_text(f"seed: {step}\n")
    (small_run / "checkpoints" / "latest").write_text("step_000001\n")
    run = read(small_run)
    assert [task.id for task in run.tasks] == [1]
    assert run.config == "seed: 1\n"
    assert any("buffer.sqlite cannot be read" in note for note in run.notes)
    assert any("step_000001" in note for note in run.notes)


def test_answers_are_those_of_the_task_the_newest_first_and_all_are_counted(tmp_path):
    for step in (1, 2, 3):
        rows = [{"task": 7, "completion": f"{step}.{k}", "outcome": "right" if k else "wrong_value"} for k in range(5)]
        synthetic.rollouts(tmp_path, step, [*rows, {"task": None, "completion": "of no task"}])
    notes: list[str] = []
    tried = AttemptFiles(tmp_path).read(notes)
    assert notes == []
    assert list(tried) == [7]
    assert [answer.completion for answer in tried[7].answers] == ["3.4", "3.3", "3.2", "3.1", "3.0", "2.4", "2.3", "2.2"][:SHOWN]
    assert tried[7].outcomes == {"right": 12, "wrong_value": 3}
    assert tried[7].left_out == 15 - SHOWN


def test_the_proposal_of_a_task_is_no_answer_to_it(small_run):
    tried = read(small_run).tried
    assert tried[3].proposal.outcome == "solve_rate=0.50"
    assert tried[3].answers == []
    assert tried[2].outcomes == {"right": 3, "wrong_value": 1}


def test_a_damaged_file_of_rollouts_is_left_out_and_said(small_run):
    synthetic.damage(small_run / "rollouts" / "step-000003.parquet")
    run = read(small_run)
    assert run.tried[2].outcomes.total() == 4
    assert any(note.startswith("1 of 3 files of rollouts cannot be read") for note in run.notes)


def test_only_rollouts_that_changed_are_read_again(small_run, monkeypatch):
    reader = Reader(small_run, "run")
    reader.read()
    stamp = reader.stamp()
    assert reader.stamp() == stamp
    seen = []
    monkeypatch.setattr("azr_nemo.observe.report.attempts._by_task", lambda path: seen.append(path.name) or {})
    synthetic.rollouts(small_run, 3, [{"task": 2}])
    assert reader.stamp() != stamp
    reader.read()
    assert seen == ["step-000003.parquet"]


def test_rollouts_that_a_resumed_run_took_back_are_forgotten(small_run):
    reader = Reader(small_run, "run")
    assert reader.read().tried[2].outcomes.total() == 4
    (small_run / "rollouts" / "step-000002.parquet").unlink()
    assert reader.read().tried[2].outcomes.total() == 2


@pytest.mark.parametrize("length", [10, 11, 100, LONGEST, LONGEST + 1, 50_000])
def test_a_text_that_is_cut_keeps_its_ends_and_says_how_much_is_missing(length):
    text = "".join(chr(97 + n % 26) for n in range(length))
    cut = shortened(text, 10)
    if length <= 10:
        assert cut == text
    else:
        assert cut == f"{text[:5]}\n… {length - 10:,} characters left out …\n{text[-5:]}"


def test_a_long_answer_says_how_long_it_was(tmp_path):
    synthetic.rollouts(tmp_path, 1, [{"task": 1, "completion": "a" * 9000 + "z"}])
    (answer,) = AttemptFiles(tmp_path).read([])[1].answers
    assert answer.length == 9001
    assert shortened(answer.completion, LONGEST, answer.length).endswith("z")
    assert "… 5,001 characters left out …" in shortened(answer.completion, LONGEST, answer.length)


def test_runs_of_the_same_name_are_told_apart():
    paths = [Path("/a/x/run"), Path("/a/y/run"), Path("/a/y/other"), Path("/b/y/run")]
    assert names(paths) == ["x/run", "y/run (1)", "other", "y/run (2)"]
    assert names([Path("/a/run"), Path("/a/run")]) == ["a/run (1)", "a/run (2)"]
