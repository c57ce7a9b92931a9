"""A killed run resumes to the same weights and buffer as one that was not killed."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

SEEDS = Path(__file__).parent.parent / "data" / "seeds.jsonl"
SETTINGS = [
    "recipe=tiny-1n0g-megatron",
    "warmup.steps=0",
    "selfplay.steps=3",
    "selfplay.batch_size=2",
    "rollout.estimate_samples=2",
    "rollout.max_propose_tokens=24",
    "rollout.max_solve_tokens=16",
    "eval.items=2",
    "data.seed_factor=1",
    f"data.seed_files=[{SEEDS}]",
    "checkpoint.every=1",
]


def start(run_dir):
    command = [sys.executable, "-m", "azr_nemo", "train", *SETTINGS, f"run_dir={run_dir}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )


def finish(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def weights(run_dir):
    folder = run_dir / "checkpoints" / "step_000003" / "weights"
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def tasks(run_dir):
    with sqlite3.connect(run_dir / "buffer.sqlite") as database:
        return database.execute("SELECT * FROM tasks ORDER BY id").fetchall()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_in_the_middle_of_step_2_ends_like_one_that_was_not(tmp_path):
    whole = start(tmp_path / "whole")
    finish(whole)
    killed = start(tmp_path / "killed")
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / "checkpoints" / "step_000001").is_dir():
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "checkpoints" / "step_000003").exists()
    output = finish(start(tmp_path / "killed"))
    assert "resumed after step" in output
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert tasks(tmp_path / "killed") == tasks(tmp_path / "whole")
