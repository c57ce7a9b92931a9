"""A run that is killed at any instant, and started again, ends with the same weights and the same buffer as one that was not, bit for bit, whatever its
schedule keeps in flight between two steps.

AZR_KILLS=20 kills in every phase several times; AZR_KILL_SEED chooses the instants again that a run has printed.
"""

import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import ARGUMENTS, ORDINARY, PLANS, RANKS, SCHEDULED, STEPS, choose, doing, phases
from run_server import Job, job
from tiny_run import state

KILLS = int(os.environ.get("AZR_KILLS", "2"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000 + 600 * KILLS)]


Start = Callable[[Path, Path], Job]


@pytest.fixture(scope="module", params=sorted(SCHEDULED) if KILLS > 2 else ORDINARY)
def schedule(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def start(cache: str, schedule: str) -> Start:
    """start(run_dir, log) starts the run, all its ranks."""
    arguments = [*ARGUMENTS, *SCHEDULED[schedule]]
    return lambda run_dir, log: job(None, RANKS[schedule], *arguments, f"run_dir={run_dir}", log=log, AZR_NEMO_CACHE=cache)


@pytest.fixture(scope="module")
def whole(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted run; its console is beside it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    ended = start(folder, folder.with_suffix(".log")).wait(PATIENCE_S)
    assert ended.code == 0, ended.output
    assert (folder / "outcome").read_text() == f"done {STEPS}\n"
    return folder


PATIENCE_S = 1200.0


def test_runs_killed_at_random_instants_end_like_one_that_was_not(start: Start, schedule: str, whole: Path, tmp_path: Path) -> None:
    seed = os.environ.get("AZR_KILL_SEED") or secrets.token_hex(4)
    print(f"AZR_KILL_SEED={seed}")
    expected, reference = state(whole, STEPS), phases(whole.with_suffix(".log"))
    assert [line["step"] for line in expected["metrics"]] == list(range(STEPS + 1))
    identical, started = 0, time.monotonic()
    for number in range(KILLS):
        kind = PLANS[schedule][number % len(PLANS[schedule])]
        run_dir, at = _killed(start, kind, reference, tmp_path / str(number), random.Random(f"{seed}/{number}"))
        ended = start(run_dir, run_dir.with_suffix(".resumed")).wait(PATIENCE_S)
        assert ended.code == 0, ended.output
        same = state(run_dir, STEPS) == expected
        identical += same
        print(f"killed in {kind} ({at}): {'identical' if same else f'DIFFERENT, see {run_dir}'}")
    print(f"{schedule}: {identical}/{KILLS} identical, {time.monotonic() - started:.0f} s")
    assert identical == KILLS


def _killed(start: Start, kind: str, reference: list, folder: Path, rng: random.Random) -> tuple[Path, str]:
    """A run directory as a kill left it, and what it was at. An instant that came too late, on a loaded machine, is chosen again."""
    for attempt in range(4):
        run_dir = folder / f"try{attempt}"
        log = run_dir.with_suffix(".log")
        run_dir.parent.mkdir(exist_ok=True)
        log.touch()
        wait = choose(kind, run_dir, log, reference, rng)
        run = start(run_dir, log)
        wait(run)
        run.kill(signal.SIGKILL)
        unfinished = [path.name for path in (run_dir / "checkpoints").glob(".writing_*")]
        if run.wait().code == -signal.SIGKILL and (kind != "save" or unfinished):
            newest = run_dir / "checkpoints" / "latest"
            held = newest.read_text() if newest.is_file() else "no checkpoint"
            return run_dir, ", ".join([doing(log), f"{held} complete", *(f"{name} not" for name in unfinished)])
    raise AssertionError(f"no run could be killed in {kind}")
