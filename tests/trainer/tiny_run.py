"""Whole runs of the tiny recipe without a warm start, in processes of their own, and what they leave behind."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from run_server import Run, shared

from azr_nemo.observe.rollout_log import read_rollouts

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
    "executor.wall_s=60",  # a busy machine must not make a timeout of what another run found valid
    "checkpoint.every=1",
]


# A model that was taught for half a minute, at a low temperature: most steps have valid proposals. Those who ask for the same share the weights.
WARMED = [
    "warmup.steps=100",
    "warmup.batch_size=16",
    "warmup.programs=150",
    "rollout.temperature=0.4",
    "rollout.max_propose_tokens=96",
    "rollout.max_solve_tokens=16",
]


def start(run_dir: Path, *overrides: str, **environment: str) -> Run:
    return shared().start(["train", *SETTINGS, f"run_dir={run_dir}", *overrides], **environment)


def finish(run: Run, code: int = 0) -> str:
    """What the run printed; fails when it does not end with this exit code."""
    ended = run.wait()
    assert ended.code == code, ended.output
    return ended.output


def refused(run: Run) -> str:
    """The one sentence with which a run refused to go on."""
    output = finish(run, code=2)
    assert "Traceback" not in output
    return output.strip().splitlines()[-1]


def state(run_dir: Path, step: int) -> dict[str, Any]:
    """What a run has after `step` steps: the weights and the optimizer in its checkpoint, its buffer, and what its logs tell."""
    weights = run_dir / "checkpoints" / f"step_{step:06d}" / "weights"
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(weights.glob("*.safetensors"))}
    assert files
    common = repr(torch.load(weights / "common.pt", weights_only=True))  # equal objects, shared or not, are pickled to different bytes
    with closing(sqlite3.connect(run_dir / "buffer.sqlite")) as database:
        rows = {table: database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in ("tasks", "notes", "sqlite_sequence")}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rewards = [{name: value for name, value in line.items() if name == "step" or "reward" in name} for line in lines]
    return {"weights": files, "counts": common, "buffer": rows, "metrics": rewards, "rollouts": list(read_rollouts(run_dir))}
