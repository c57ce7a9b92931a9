"""When to kill a run: instants that are chosen by what the run is doing, told from its console lines and from the files that it makes."""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_server import Job
from tiny_run import WARMED

SEEDS = Path(__file__).parent.parent / "data" / "seeds.jsonl"
STEPS = 5
# There is something to estimate, to store and to lose. A prompted seeding, checkpoints with a step between them, and after consecutive steps.
ARGUMENTS = [
    "train",
    "recipe=tiny-1n0g-megatron",
    *WARMED,
    "selfplay.batch_size=3",
    f"selfplay.steps={STEPS}",
    "rollout.estimate_samples=2",
    "eval.items=2",
    f"data.seed_files=[{SEEDS}]",
    "data.seed_factor=5",
    "data.seed_rounds=2",
    "data.seed_batch=4",
    "executor.wall_s=60",  # a busy machine must not make a timeout of what another run found valid
    "checkpoint.every=2",
    "engine.threads=1",
    "logging.console=json",
    "logging.tensorboard=false",
]
SCHEDULED = {
    "sequential": [],
    "merged": ["selfplay.schedule=merged", "selfplay.solve_from=previous_mixed"],
    "pipelined": ["selfplay.schedule=pipelined", "selfplay.solve_from=previous_mixed"],
    "split": ["placement=split", "cluster.sampler_ranks=1", "selfplay.staleness=1"],
}
RANKS = {"sequential": 1, "merged": 1, "pipelined": 1, "split": 2}  # all are killed at once
ORDINARY = ("sequential", "pipelined", "split")  # merged has nothing in flight that sequential has not
# What the twenty runs of each schedule are killed in; the first ones are what an ordinary test run has time for.
PLANS = {
    "sequential": ["save", "buffer write", "update", "estimate", "seed", "propose", "save", "solve", "buffer write", "update", "save", "propose",
                   "estimate", "seed", "solve", "save", "buffer write", "update", "estimate", "propose"],
    "merged": ["sample", "save", "update", "estimate", "buffer write", "sample", "save", "seed", "update", "estimate", "sample", "save",
               "buffer write", "update", "sample", "estimate", "save", "buffer write", "sample", "update"],
    "pipelined": ["sample", "save", "update", "buffer write", "sample", "propose", "save", "execute", "buffer write", "update", "sample", "save",
                  "seed", "sample", "update", "save", "buffer write", "sample", "execute", "update"],
    "split": ["update", "save", "refit", "buffer write", "solve", "propose", "save", "estimate", "buffer write", "update", "refit", "save", "seed",
              "solve", "update", "save", "buffer write", "propose", "refit", "update"],
}  # fmt: skip
PATIENCE_S = 1200.0
LOOKED_EVERY_S = 2.0  # whether the run still goes on


@dataclass(frozen=True)
class Phase:
    """One phase of the uninterrupted run: its name and how long it took."""

    name: str
    seconds: float


def phases(log: Path) -> list[Phase]:
    """The phases that ended, in the order of their ends."""
    return [Phase(event["name"], event["elapsed_s"]) for event in events(log) if event["event"] == "phase" and event["state"] == "ended"]


def events(log: Path) -> list[dict[str, Any]]:
    """The console's events so far; a line that is still being written, and what others print, is left out."""
    found = []
    for line in log.read_bytes().split(b"\n")[:-1]:
        if line.startswith(b"{"):
            found.append(json.loads(line))
    return found


def doing(log: Path) -> str:
    """What the run was at when its console ended: the phase it was in, or the one it had left."""
    last, inside = "the start", False
    for event in events(log):
        if event["event"] == "phase":
            last, inside = event["name"], event["state"] != "ended"
    return last if inside else f"after {last}"


def choose(kind: str, run_dir: Path, log: Path, reference: list[Phase], rng: random.Random) -> Callable[[Job], None]:
    """Waits for a random instant of this kind in a run that goes as `reference` went."""
    if kind == "save":
        saves = sum(phase.name == "save" for phase in reference)
        count, pause = rng.randrange(saves), rng.uniform(0, 0.05)
        return lambda run: _wait(run, run_dir, _saves_begun(run_dir, count), pause)
    if kind == "buffer write":
        count = rng.randrange(2, 16)
        return lambda run: _wait(run, run_dir, _writes_seen(run_dir, count), 0.0)
    times = [phase.seconds for phase in reference if phase.name == kind]
    assert times, f"the uninterrupted run has no phase {kind}"
    count = rng.randrange(len(times))
    pause = rng.random() * min(times)

    def begun() -> bool:
        return sum(event["event"] == "phase" and event["name"] == kind and event["state"] == "began" for event in events(log)) > count

    return lambda run: _wait(run, run_dir, begun, pause)


def _wait(run: Job, run_dir: Path, happened: Callable[[], bool], pause: float) -> None:
    """Also returns when the run was done before the instant came. Fails when it ended otherwise."""
    began = looked = time.monotonic()
    while not happened() and not (run_dir / "outcome").exists():
        now = time.monotonic()
        assert now < began + PATIENCE_S, "the instant did not come"
        if now > looked + LOOKED_EVERY_S:
            looked = now
            assert run.runs[0].poll() in (None, 0), run.runs[0].output()
        time.sleep(0.001)
    time.sleep(pause)


def _saves_begun(run_dir: Path, count: int) -> Callable[[], bool]:
    """Whether more than `count` checkpoints have been begun."""
    seen: set[str] = set()

    def begun() -> bool:
        seen.update(path.name for path in (run_dir / "checkpoints").glob(".writing_*"))
        return len(seen) > count

    return begun


def _writes_seen(run_dir: Path, count: int) -> Callable[[], bool]:
    """Whether the buffer's journal has been seen to move `count` times."""
    journal = run_dir / "buffer.sqlite-wal"
    seen: list[tuple[int, int]] = []

    def moved() -> bool:
        try:
            status = os.stat(journal)
        except FileNotFoundError:
            return False
        now = (status.st_size, status.st_mtime_ns)
        if not seen or seen[-1] != now:
            seen.append(now)
        return len(seen) > count

    return moved
