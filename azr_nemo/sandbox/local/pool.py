"""The local executor: jailed workers, one per core, behind one bounded queue."""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from azr_nemo.sandbox.executor import Executor, ExecutorUnavailable, Limits, Outcome, Request, Script, ScriptResult, confirmed
from azr_nemo.sandbox.local.jail import Plan, Rung, choose, plan
from azr_nemo.sandbox.local.process import Worker, WorkerLost

HASH_SEEDS = (1, 2)  # of even and odd workers: an output that follows the order of a set differs between them
CLOSE_S = 30.0


@dataclass(order=True)
class _Job:
    """A request on its way. side: which of the two hash seeds must run it next, None for either. first: what the first worker said."""

    number: int
    request: Request | Script = field(compare=False)
    future: Future[Any] = field(compare=False)
    side: int | None = field(compare=False)
    first: list[Outcome] | None = field(default=None, compare=False)


class LocalPool(Executor):
    """The executor on this machine. One thread drives one worker process; a request runs in one fork of it, whatever its number of inputs.

    workers: processes; 0 is one per core this process may use. Determinism needs two hash seeds, so one worker is given a second for such requests only.
    limits: for requests without their own. recycle_after: requests after which a worker is replaced. queue: requests that may wait. modules: installed
    packages that programs may import beside the standard library. rung: "auto" is the strongest that holds; or one by
    name, or a plan that was made before.
    Raises ExecutorUnavailable when no rung holds (and `allow_unjailed` is false) or workers do not start.

    A worker that dies is replaced and its request repeated once; should the second die too, the request's future raises ExecutorUnavailable.
    Callbacks of futures run in the worker's thread: while one runs, that worker idles; it may submit more, and is then never blocked by a full queue.
    """

    def __init__(
        self,
        workers: int = 0,
        limits: Limits = Limits(),
        recycle_after: int = 2000,
        queue: int = 1024,
        allow_unjailed: bool = False,
        rung: str | Plan = "auto",
        modules: Sequence[str] = (),
    ):
        self.limits, self.recycle_after, self.queue = limits, recycle_after, queue
        self.workers = workers or len(os.sched_getaffinity(0))
        if not isinstance(rung, Plan):
            rung = choose(allow_unjailed, modules) if rung == "auto" else plan(Rung(rung), modules)
        self._plan = rung
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._wake = (threading.Condition(self._lock), threading.Condition(self._lock))
        self._idle = [0, 0]  # threads of each side that nobody has woken
        self._waiting: dict[int | None, list[_Job]] = {None: [], 0: [], 1: []}
        self._queued = 0  # requests that no worker has begun
        self._numbers = itertools.count()
        self._closing = False
        self._running: dict[int, Worker] = {}
        count = max(self.workers, 2)
        started: list[Future[None]] = [Future() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._serve, args=(index, started[index]), name=f"executor-{index}", daemon=True)
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()
        try:
            for future in started:
                future.result()
        except ExecutorUnavailable:
            self.close()
            raise

    def submit(self, request: Request) -> Future[list[Outcome]]:
        """See `Executor.submit`. Raises ExecutorUnavailable when the pool is closed. A cancelled request leaves the queue when its turn comes."""
        return self._enqueue(request if request.limits is not None else replace(request, limits=self.limits))

    def submit_script(self, script: Script) -> Future[ScriptResult]:
        """See `Executor.submit_script`."""
        return self._enqueue(script)

    def _enqueue(self, request: Request | Script) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            while self._queued >= self.queue and not self._closing and threading.current_thread() not in self._threads:
                self._room.wait()
            if self._closing:
                raise ExecutorUnavailable("the executor is closed")
            number = next(self._numbers)
            side = None
            if isinstance(request, Request) and request.deterministic:
                side = number % 2 if self.workers > 1 else 0
            self._queued += 1
            self._put(_Job(number, request, future, side))
        return future

    def describe(self) -> str:
        """See `Executor.describe`."""
        workers = "1 worker and a second for determinism" if self.workers == 1 else f"{self.workers} workers"
        return f"local executor, {self._plan.describe()}, {workers}"

    @property
    def rung(self) -> Rung:
        return self._plan.rung

    def pids(self) -> list[int]:
        """The process ids of the workers, as this process started them."""
        with self._lock:
            return [worker.pid for worker in self._running.values()]

    def close(self) -> None:
        """Ends the workers. Requests that have no outcome yet raise ExecutorUnavailable. Bounded in time; may be repeated."""
        with self._lock:
            self._closing = True
            left = [job for jobs in self._waiting.values() for job in jobs]
            for jobs in self._waiting.values():
                jobs.clear()
            for condition in (self._room, *self._wake):
                condition.notify_all()
            for worker in self._running.values():
                worker.hang_up()
        for job in left:
            if job.first is not None or job.future.set_running_or_notify_cancel():
                job.future.set_exception(ExecutorUnavailable("the executor was closed before this program ran"))
        until = time.monotonic() + CLOSE_S
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _put(self, job: _Job) -> None:
        """Adds a job and wakes one thread that may take it. The caller holds the lock."""
        heapq.heappush(self._waiting[job.side], job)
        side = job.side
        if side is None:
            side = 0 if self.workers == 1 or self._idle[0] >= self._idle[1] else 1
        if self._idle[side]:
            self._idle[side] -= 1
            self._wake[side].notify()

    def _take(self, side: int, only_its_side: bool) -> _Job | None:
        """The oldest job for this side; waits for one. None when the pool closes."""
        heaps = [self._waiting[side]] if only_its_side else [self._waiting[side], self._waiting[None]]
        with self._lock:
            while not self._closing:
                ready = [heap for heap in heaps if heap]
                if not ready:
                    self._idle[side] += 1
                    self._wake[side].wait()
                    continue
                job = heapq.heappop(min(ready))
                if job.first is not None:
                    return job
                self._queued -= 1
                self._room.notify()
                if job.future.set_running_or_notify_cancel():
                    return job
        return None

    def _serve(self, index: int, started: Future[None]) -> None:
        """A thread's life: keeps worker number `index` running and gives it one job after the other."""
        worker: Worker | None = None
        try:
            worker = self._start(index)
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        while (job := self._take(index % 2, only_its_side=index >= self.workers)) is not None:
            try:
                result = None
                for attempt in range(2):
                    worker = worker or self._start(index)
                    try:
                        result = _leg(worker, job)
                        break
                    except WorkerLost as error:
                        self._stop(index, worker)
                        worker = None
                        if attempt == 1 or self._closing:
                            raise ExecutorUnavailable(f"a program could not be executed, twice: {error}") from None
                assert result is not None
            except ExecutorUnavailable as error:
                job.future.set_exception(error)
                continue
            except BaseException as error:  # a fault of our own: whoever waits must hear of it
                job.future.set_exception(error)
                raise
            self._complete(job, result)
            if worker is not None and worker.served >= self.recycle_after:  # the next request starts another
                self._stop(index, worker)
                worker = None
        if worker is not None:
            self._stop(index, worker)

    def _start(self, index: int) -> Worker:
        worker = Worker(self._plan, HASH_SEEDS[index % 2])
        with self._lock:
            self._running[index] = worker
            closing = self._closing
        if closing:
            worker.hang_up()
        return worker

    def _stop(self, index: int, worker: Worker) -> None:
        with self._lock:
            self._running.pop(index, None)
        worker.close()

    def _complete(self, job: _Job, result: list[Outcome] | ScriptResult) -> None:
        """Hands the result over, or passes on to the other hash seed the outcomes that must be confirmed there."""
        if isinstance(result, ScriptResult) or isinstance(job.request, Script):
            job.future.set_result(result)
            return
        if job.first is not None:
            confirmations = iter(result)
            result = [confirmed(outcome, next(confirmations)) if outcome.ok else outcome for outcome in job.first]
        elif job.request.deterministic and any(outcome.ok for outcome in result):
            assert job.side is not None
            with self._lock:
                if not self._closing:
                    self._put(_Job(job.number, job.request, job.future, 1 - job.side, result))
                    return
            job.future.set_exception(ExecutorUnavailable("the executor was closed before this program ran"))
            return
        job.future.set_result(result)


def _leg(worker: Worker, job: _Job) -> list[Outcome] | ScriptResult:
    request = job.request
    if isinstance(request, Script):
        return worker.run_script(request)
    assert request.limits is not None
    inputs = list(request.inputs)
    if job.first is not None:
        inputs = [text for text, outcome in zip(inputs, job.first, strict=True) if outcome.ok]
    runs = 2 if request.deterministic and job.first is None else 1
    return worker.run(request.program, inputs, request.limits, runs)
