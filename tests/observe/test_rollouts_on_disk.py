"""Every completion of a step is on disk, in one file a step, written beside the run; a step that is done again leaves the same rows."""

import random
import sys
import threading
from collections import Counter

import process_trees
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from many_rollouts import GROUPS, rollout, step_of

from azr_nemo.errors import UserError
from azr_nemo.observe import rollout_log as module
from azr_nemo.observe.rollout_log import RolloutLog, choose, path_of, read_rollouts, schema, stored_steps, write_step
from azr_nemo.tasks.task import TaskType


def test_a_rollout_is_a_row_with_all_it_knows(tmp_path):
    refused = rollout("propose", TaskType.INDUCTION, "éà\n\x00\x1b", outcome="no_entry", task=None, references=(3, 9), advantage=-0.5)
    estimate = rollout("estimate", TaskType.ABDUCTION, "broken \ud800", outcome="right", task=7, advantage=None)
    with RolloutLog(tmp_path, 1.0) as log:
        log.write(12, [refused, estimate])
    assert [path.name for path in (tmp_path / "rollouts").iterdir()] == ["step-000012.parquet"]
    assert list(read_rollouts(tmp_path)) == [
        {
            "step": 12, "phase": "propose", "role": "propose", "type": "induction", "task": None, "references": [3, 9],
            "prompt": "induction?", "completion": "éà\n\x00\x1b", "outcome": "no_entry", "reward": 0.5, "advantage": -0.5, "response_tokens": 4,
        },
        {
            "step": 12, "phase": "estimate", "role": "solve", "type": "abduction", "task": 7, "references": [],
            "prompt": "abduction?", "completion": "broken \\ud800", "outcome": "right", "reward": 0.5, "advantage": None, "response_tokens": 4,
        },
    ]  # fmt: skip


def test_the_file_is_parquet_of_the_documented_columns_compressed_with_zstd(tmp_path):
    write_step(tmp_path, 3, step_of(prompts=8, answers=8, text="x = 1\n" * 300))
    file = pq.ParquetFile(path_of(tmp_path, 3))
    assert file.schema_arrow.equals(schema())
    assert {str(field.type) for field in schema() if field.name in ("prompt", "completion", "outcome", "phase", "role", "type")} == {
        "string"
    }
    group = file.metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}
    assert path_of(tmp_path, 3).stat().st_size < 0.05 * sum(len(r.prompt) + len(r.completion) for r in step_of(8, 8, "x = 1\n" * 300))


def test_the_step_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    begun, may_go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        assert may_go_on.wait(60)
        write_step(*arguments)

    monkeypatch.setattr(module, "write_step", slow)
    log = RolloutLog(tmp_path, 1.0)
    log.write(1, step_of())
    assert begun.wait(60)
    log.write(2, step_of())  # and the next one is handed over, too
    assert stored_steps(tmp_path) == {}
    may_go_on.set()
    log.flush()
    assert list(stored_steps(tmp_path)) == [1, 2]
    log.close()
    log.close()


def hand_over(log, steps):
    for step in steps:
        log.write(step, step_of())


def test_a_disk_that_hangs_ends_the_run_with_a_sentence(tmp_path, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(module, "write_step", lambda *arguments: hangs.wait(60))
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    log = RolloutLog(tmp_path, 1.0)
    log.write(1, step_of())
    with pytest.raises(UserError, match=r"has taken nothing for .* look at the disk"):
        log.flush()
    with pytest.raises(UserError, match="has taken nothing for"):
        hand_over(log, range(2, 5))
    hangs.set()


def full(*arguments):
    raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_run_with_a_sentence_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    log = RolloutLog(tmp_path, 1.0)
    log.write(1, step_of())
    log.flush()
    monkeypatch.setattr("os.replace", full)
    log.write(2, step_of())
    sentence = r"cannot write .*rollouts \(No space left on device\).*make room, or write fewer with logging.rollouts=0.1"
    with pytest.raises(UserError, match=sentence):
        log.flush()
    for end in (lambda: log.write(3, step_of()), log.close):
        with pytest.raises(UserError, match=sentence):
            end()
    assert [path.name for path in (tmp_path / "rollouts").iterdir()] == ["step-000001.parquet"]


def test_a_run_that_fails_tells_its_own_error_and_its_rollouts_are_written(tmp_path, monkeypatch):
    def run(error):
        with RolloutLog(tmp_path, 1.0) as log:
            log.write(1, step_of())
            raise error

    with pytest.raises(ValueError, match="a bug"):
        run(ValueError("a bug"))
    assert list(stored_steps(tmp_path)) == [1]
    monkeypatch.setattr(module, "write_step", full)
    with pytest.raises(ValueError, match="another"):
        run(ValueError("another"))


def test_a_row_that_does_not_fit_its_column_is_an_error_of_the_run(tmp_path):
    log = RolloutLog(tmp_path, 1.0)
    log.write(1, [rollout("solve", TaskType.DEDUCTION, "1", reward="much")])
    with pytest.raises(UserError, match=r"the rollouts of step 1 could not be written: .*much"):
        log.close()


def test_a_resumed_run_drops_later_steps_and_what_was_half_written(tmp_path):
    with RolloutLog(tmp_path, 0.5, seed=3) as log:
        for step in (1, 2, 3):
            log.write(step, step_of())
    before = path_of(tmp_path, 3).read_bytes()
    (tmp_path / "rollouts" / ".step-000004.parquet.writing").write_bytes(b"PAR1")
    (tmp_path / "rollouts" / "notes.txt").write_text("the user's own")
    with RolloutLog(tmp_path, 0.5, seed=3) as log:
        log.rewind(2)
        assert sorted(path.name for path in (tmp_path / "rollouts").iterdir()) == [
            "notes.txt",
            "step-000001.parquet",
            "step-000002.parquet",
        ]
        log.write(3, step_of())
    assert path_of(tmp_path, 3).read_bytes() == before
    with RolloutLog(tmp_path, 0.5) as log:
        log.rewind(-1)
    assert stored_steps(tmp_path) == {}


def test_a_share_of_zero_writes_nothing(tmp_path):
    with RolloutLog(tmp_path, 0.0) as log:
        log.write(1, step_of())
        log.rewind(-1)
    assert list(tmp_path.iterdir()) == []


def test_a_step_without_rollouts_is_an_empty_file(tmp_path):
    with RolloutLog(tmp_path, 1.0) as log:
        log.write(1, [])
    assert list(read_rollouts(tmp_path)) == []
    assert list(stored_steps(tmp_path)) == [1]


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 7))
def test_a_share_is_taken_of_every_group_and_of_whole_prompts(seed, share, prompts):
    rows = step_of(prompts=prompts)
    chosen = choose(rows, share, random.Random(seed))
    assert chosen == choose(rows, share, random.Random(seed))
    places = [next(i for i, row in enumerate(rows) if row is one) for one in chosen]
    assert places == sorted(places)
    whole = Counter((row.phase, row.type, row.prompt) for row in rows)
    kept = Counter((row.phase, row.type, row.prompt) for row in chosen)
    assert all(count == whole[prompt] for prompt, count in kept.items())
    for phase, kind in GROUPS:
        count = sum((p, k) == (phase, kind) for p, k, _ in kept)
        assert abs(count - share * prompts) < 1


def test_a_small_share_of_small_steps_holds_on_average():
    kept = [choose(step_of(prompts=2), 0.1, random.Random(step)) for step in range(400)]
    for group in GROUPS:
        mean = sum(len({row.prompt for row in rows if (row.phase, row.type) == group}) for rows in kept) / len(kept)
        assert 0.1 < mean < 0.3, "two prompts a step, a tenth of them"


def test_parquet_is_imported_only_by_what_needs_it():
    code = "import azr_nemo.cli, azr_nemo.observe.rollout_log, azr_nemo.observe.rollout_listing, sys; print('pyarrow' in sys.modules)"
    assert process_trees.run([sys.executable, "-c", code], timeout=240, check=True).stdout == "False\n"
