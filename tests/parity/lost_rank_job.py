"""Jobs of three ranks of which one is lost. `lost_rank_job.py MODEL_DIR OUT`: runs every case and writes OUT/<case>.json.

A case names the rank, the phase and what happens to it there. The ranks are forks of this process, which has imported everything, so that
a case takes seconds; each sees a job of its own as a launcher would give it, without the launcher's own clean-up.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny_models import EchoRollout, run_config, training_batch

import azr_nemo.rollout
from azr_nemo.errors import UserError
from azr_nemo.megatron import actor as actors
from azr_nemo.megatron import controller as workers
from azr_nemo.megatron.controller import MegatronEngine, Worker
from azr_nemo.selfplay.exchange import Prompt, PromptBatch
from azr_nemo.tasks.task import PromptText, Role, TaskType

RANKS = 3
WATCHDOG_S = 20.0
PROMPTS = [Prompt(PromptText("x" * n), Role.SOLVE, TaskType.DEDUCTION, samples=3) for n in (3, 1, 2)]
# case: (rank, phase, what happens); those of one row run side by side
CASES: list[dict[str, tuple[int, str, str]]] = [
    {"killed-generating": (1, "generate", "kill")},
    {"killed-updating": (2, "update", "kill")},
    {"first-killed-updating": (0, "update", "kill")},
    {"raised-generating": (1, "generate", "raise")},
    {"raised-saving": (2, "save", "raise")},
    {"first-raised-updating": (0, "update", "raise")},
    {
        "stopped-updating": (1, "update", "stop"),
        "first-stopped-generating": (0, "generate", "stop"),
        "looping-generating": (2, "generate", "loop"),
        "first-looping-between": (0, "between", "loop"),
        "suspended": (0, "between", "pause"),
    },
]
SUSPENDED_S = 25.0  # longer than the watchdog's patience


def happens(what: str) -> None:
    if what == "raise":
        raise UserError("the part broke")
    if what == "pause":
        print("pausing", flush=True)
        return time.sleep(2)
    if what == "loop":
        while True:
            time.sleep(0.01)
    return os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGSTOP)


def run_rank(model_dir: Path, out: Path, rank: int, victim: int, phase: str, what: str) -> None:
    def strike(here: str) -> None:
        if (rank, here) == (victim, phase):
            happens(what)

    class Rollout(EchoRollout):
        def generate(self, *args: Any, **kwargs: Any) -> Any:
            strike("generate")
            return super().generate(*args, **kwargs)

    update, snapshot = actors.Actor.update, workers.take_snapshot

    def updating(self: actors.Actor, batch: Any) -> Any:
        strike("update")
        return update(self, batch)

    def saving(*args: Any, **kwargs: Any) -> Any:
        strike("save")
        return snapshot(*args, **kwargs)

    azr_nemo.rollout.make_rollout = Rollout  # type: ignore[attr-defined]
    actors.Actor.update = updating  # type: ignore[method-assign]
    workers.take_snapshot = saving
    config = run_config()
    config.runtime.watchdog_s = WATCHDOG_S
    worker = Worker(config, model_dir)
    if rank:
        sys.exit(worker.serve())
    engine = MegatronEngine(config, model_dir, worker)
    try:
        for number in range(2):
            engine.generate(PromptBatch(PROMPTS, "solve"), seed=number)
            engine.update(training_batch(seed=number))
            strike("between")
            (out / f"{number}").mkdir(parents=True)
            engine.save(out / f"{number}")
    finally:
        engine.close()


def fork_rank(log: Path, rank: int | None, ranks: int, port: int, work: Callable[[], None]) -> int:
    """The process id of a fork that does `work` as a rank of so many, or alone where it is None, writes to `log` and ends as a run does."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        written = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(written, 1)
        os.dup2(written, 2)
        if rank is not None:
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
        work()
        code = 0
    except UserError as error:
        print(f"azr-nemo: {error}", file=sys.stderr)
        code = 2
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(cases: dict[str, tuple[int, str, str]], model_dir: Path, out: Path) -> None:
    """Writes for each case the exit codes by rank, what each rank said, and the seconds until the last process was gone."""
    started = time.monotonic()
    living: dict[int, tuple[str, int]] = {}
    codes: dict[str, dict[int, int]] = {name: {} for name in cases}
    seconds: dict[str, float] = {}
    suspended: dict[str, float] = {}
    for name, case in cases.items():
        (out / name).mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(RANKS):
            work = partial(run_rank, model_dir, out / name, rank, *case)
            living[fork_rank(out / name / f"rank-{rank}.log", rank, RANKS, port, work)] = (name, rank)
    while living and time.monotonic() - started < 120:
        for name in [name for name, (_, _, what) in cases.items() if what == "pause" and name not in suspended]:
            log = out / name / "rank-0.log"  # a rank that has just been forked has none yet
            if log.exists() and "pausing" in log.read_text():
                suspended[name] = time.monotonic()
                signal_all(living, name, signal.SIGSTOP)
        for name, since in suspended.items():
            if time.monotonic() - since > SUSPENDED_S:
                signal_all(living, name, signal.SIGCONT)
        for pid in list(living):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                name, rank = living.pop(pid)
                codes[name][rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                seconds[name] = time.monotonic() - started
        time.sleep(0.05)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for name in cases:
        said = {rank: (out / name / f"rank-{rank}.log").read_text(errors="replace") for rank in range(RANKS)}
        (out / f"{name}.json").write_text(json.dumps({"codes": codes[name], "said": said, "seconds": seconds.get(name)}))


def signal_all(living: dict[int, tuple[str, int]], case: str, number: int) -> None:
    for pid, (name, _) in living.items():
        if name == case:
            os.kill(pid, number)


if __name__ == "__main__":
    torch.set_num_threads(1)
    directory, results, *only = sys.argv[1:]
    for group in CASES:
        chosen = {name: case for name, case in group.items() if not only or name in only}
        run(chosen, Path(directory), Path(results))
