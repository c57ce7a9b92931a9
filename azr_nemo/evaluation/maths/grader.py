"""Compares answers in jailed processes of their own, each comparison in a fork that is ended at the deadline.

The jail is the executor's (`sandbox.local`): a worker imports math-verify, gives up everything but reading its libraries, and forks a cell with
seccomp, limits of memory and CPU time, and no descriptor but the pipe for its verdict. What a model wrote is parsed only in there, so nothing it
could do there changes another answer's verdict.
"""

import importlib.util
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Status
from azr_nemo.sandbox.local.jail import Plan, Rung, plan
from azr_nemo.sandbox.local.process import Worker, WorkerLost
from azr_nemo.sandbox.local.seccomp import cell_filter

MODULES = ("antlr4", "mpmath", "sympy", "latex2sympy2_extended", "math_verify")
COMPARISON = "comparison"  # the module in HERE / "jailed"
PROGRAM = f"from {COMPARISON} import same\n\ndef f(gold, answer):\n    return same(gold, answer)\n"
HERE = Path(__file__).parent
WALL_PER_CPU = 4  # a comparison that waits for the CPU is not slow; wall time only ends one that sleeps
MEMORY_MB = 1024


class Verdict(StrEnum):
    """How a comparison ended; every one but RIGHT is a wrong answer, and its name is the grade's reason."""

    RIGHT = "right"
    WRONG = "wrong_value"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    ERROR = "error"


class MathGrader:
    """Compares answers by math-verify. Thread-safe. The workers end with this process, whatever ends it.

    deadline_s: CPU seconds of one comparison, as the original's 3 (wall time: four times that). workers: processes. queue: comparisons that may wait.
    Raises UserError when math-verify is not installed, and ExecutorUnavailable when this machine has no seccomp and `allow_unjailed` is false.
    """

    def __init__(self, deadline_s: float = 3.0, workers: int = 1, queue: int = 1024, allow_unjailed: bool = False):
        self._limits = Limits(wall_s=WALL_PER_CPU * deadline_s, cpu_s=deadline_s, memory_mb=MEMORY_MB)
        self._plan = jail_plan(allow_unjailed)
        self._room = threading.BoundedSemaphore(queue)
        self._lock = threading.Lock()
        self._running: set[Worker] = set()
        self._closing = False
        self._mine = threading.local()  # each thread's worker
        self._threads = ThreadPoolExecutor(workers, "maths")

    def submit(self, gold: str, answer: str) -> Future[Verdict]:
        """Queues a comparison. The future yields a verdict or raises ExecutorUnavailable. Blocks while the queue is full, except in a callback of one
        of its futures. Raises ExecutorUnavailable when the grader is closed."""
        future: Future[Verdict]
        if " ".join(gold.split()) == " ".join(answer.split()):
            future = Future()
            future.set_result(Verdict.RIGHT)
            return future
        waits = not getattr(self._mine, "serving", False)
        if waits:
            self._room.acquire()
        try:
            future = self._threads.submit(self._compare, gold, answer)
        except RuntimeError:
            if waits:
                self._room.release()
            raise ExecutorUnavailable("the maths grader is closed") from None
        if waits:
            future.add_done_callback(lambda _: self._room.release())
        return future

    def pids(self) -> list[int]:
        """The process ids of the workers that are running."""
        with self._lock:
            return [worker.pid for worker in self._running]

    def close(self) -> None:
        """Ends the workers. Comparisons without a verdict raise ExecutorUnavailable. Bounded in time; may be repeated."""
        with self._lock:
            self._closing = True
            for worker in self._running:
                worker.hang_up()
        self._threads.shutdown(wait=True)
        with self._lock:
            left, self._running = self._running, set()
        for worker in left:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _compare(self, gold: str, answer: str) -> Verdict:
        """In a thread of the pool, which lives as long as its worker must. A worker that dies is replaced and asked once more."""
        self._mine.serving = True
        for last in (False, True):
            worker = self._worker()
            try:
                (outcome,) = worker.run(PROGRAM, [f"{gold!r}, {answer!r}"], self._limits, runs=1)
                return _verdict(outcome)
            except WorkerLost:
                self._forget(worker)
                if last:
                    raise
        raise AssertionError

    def _worker(self) -> Worker:
        worker: Worker | None = getattr(self._mine, "worker", None)
        if worker is not None:
            return worker
        if self._closing:
            raise ExecutorUnavailable("the maths grader was closed before this answer was compared")
        worker = Worker(self._plan, hash_seed=1)
        with self._lock:
            self._running.add(worker)
            if self._closing:
                worker.hang_up()
        self._mine.worker = worker
        return worker

    def _forget(self, worker: Worker) -> None:
        self._mine.worker = None
        with self._lock:
            self._running.discard(worker)
        worker.close()


def jail_plan(allow_unjailed: bool = False) -> Plan:
    """How a worker that compares is started: seccomp, and landlock where the kernel has it. No change of user: what is imported late must stay readable.

    Raises UserError and ExecutorUnavailable as `MathGrader`.
    """
    for module in MODULES:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"maths suites need {module}, which is not installed: pip install 'azr-nemo[eval]'")
    if not allow_unjailed:
        cell_filter()
    bare = plan(Rung.UNJAILED, MODULES)
    frame = bare.first_frame
    here = str(HERE / "jailed")
    return replace(bare, first_frame={**frame, "modules": [*MODULES, COMPARISON], "search": [*frame["search"], here]})


def _verdict(outcome: Outcome) -> Verdict:
    if outcome.ok:
        return Verdict.RIGHT if outcome.value == "True" else Verdict.WRONG
    return {Status.TIMEOUT: Verdict.TIMEOUT, Status.MEMORY: Verdict.MEMORY}.get(outcome.status, Verdict.ERROR)
