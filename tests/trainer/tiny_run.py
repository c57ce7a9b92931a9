"""Whole runs of the tiny recipe without a warm start, in processes of their own, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

SEEDS = Path(__file__).parent.parent / "data" / "seeds.jsonl"
SETTINGS = [
    "recipe=tiny-1n0g-megatron",
    "warmup.steps=0",
    "selfplay.batch_size=2",
    "rollout.estimate_samples=2",
    "rollout.max_propose_tokens=24",
    "rollout.max_solve_tokens=16",
    "eval.items=2",
    "data.seed_factor=1",
    f"data.seed_files=[{SEEDS}]",
    "checkpoint.every=1",
]


def start(run_dir: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "azr_nemo", "train", *SETTINGS, f"run_dir={run_dir}", *overrides]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """What the run printed; fails when it does not end with this exit code."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def refused(process: subprocess.Popen[str]) -> str:
    """The one sentence with which a run refused to go on."""
    output = finish(process, code=2)
    assert "Traceback" not in output
    return output.strip().splitlines()[-1]
