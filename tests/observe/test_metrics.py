"""Metrics are in the file and in TensorBoard after every step, and a resumed run's curve has each step once."""

import errno
import json
import math
import os
import signal

import process_trees
import pytest

from azr_nemo.errors import UserError
from azr_nemo.observe.metrics import MetricsLog, read_metrics


def scalars(run_dir, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]


def test_a_step_is_one_line_with_its_time(tmp_path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write(3, {"train/loss": 0.5, "train/entropy": math.nan})
    (row,) = read_metrics(tmp_path / "metrics.jsonl")  # read before close: nothing waits in a buffer
    assert row.pop("time") > 1.7e9
    assert row == {"step": 3, "train/loss": 0.5, "train/entropy": None}
    assert not (tmp_path / "tensorboard").exists()


def test_numbers_of_other_libraries_are_taken(tmp_path):
    import torch

    MetricsLog(tmp_path, tensorboard=False).write(1, {"a/b": torch.tensor(2.0), "c/d": 3})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["a/b"] == 2.0


def test_rewind_forgets_later_steps_in_the_file_and_in_tensorboard(tmp_path):
    killed = MetricsLog(tmp_path, tensorboard=True)
    for step in (1, 2, 3):
        killed.write(step, {"train/loss": step / 10})
    resumed = MetricsLog(tmp_path, tensorboard=True)  # the first one was never closed: its process is gone
    resumed.rewind(2)
    resumed.write(3, {"train/loss": 0.9})
    resumed.write(4, {"train/loss": 0.4})
    resumed.close()
    killed.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["train/loss"]) for row in rows] == [(1, 0.1), (2, 0.2), (3, 0.9), (4, 0.4)]
    assert scalars(tmp_path, "train/loss") == [(1, 0.1), (2, 0.2), (3, 0.9), (4, 0.4)]


def test_what_was_written_survives_sigkill(tmp_path):
    if not (child := process_trees.fork()):
        MetricsLog(tmp_path, tensorboard=False).write(1, {"train/loss": 1.0})
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_tensorboard_that_cannot_be_written_names_its_switch(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(UserError, match=r"logging\.tensorboard=false"):
        MetricsLog(tmp_path, tensorboard=True).write(1, {"train/loss": 1.0})


def test_tensorboard_on_a_disk_that_fills_is_a_sentence_and_closing_adds_nothing(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path, tensorboard=True)
    log.write(1, {"train/loss": 1.0})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log._sinks[0]._writer, "flush", full)
    monkeypatch.setattr(log._sinks[0]._writer, "close", full)
    with pytest.raises(UserError, match=r"TensorBoard events .*No space left on device.*logging\.tensorboard=false"):
        log.write(2, {"train/loss": 1.0})
    log.close()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
