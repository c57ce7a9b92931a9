"""A killed run resumes to the same weights and buffer as one that was not killed."""

import hashlib
import signal
import sqlite3
import time

import pytest
from tiny_run import finish, start

STEPS = "selfplay.steps=3"


def weights(run_dir, step=3):
    folder = run_dir / "checkpoints" / f"step_{step:06}" / "weights"
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def tasks(run_dir):
    with sqlite3.connect(run_dir / "buffer.sqlite") as database:
        return database.execute("SELECT * FROM tasks ORDER BY id").fetchall()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_in_the_middle_of_step_2_ends_like_one_that_was_not(tmp_path):
    whole = start(tmp_path / "whole", STEPS)
    finish(whole)
    killed = start(tmp_path / "killed", STEPS)
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / "checkpoints" / "step_000001").is_dir():
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "checkpoints" / "step_000003").exists()
    output = finish(start(tmp_path / "killed", STEPS))
    assert "resumed after step" in output
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert tasks(tmp_path / "killed") == tasks(tmp_path / "whole")
