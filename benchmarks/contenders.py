"""Whoever runs programs in `executor.py`: our pool, with and without isolation, its peers, and the two limits."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, pairwise
from queue import SimpleQueue
from typing import Any, Protocol
from urllib.parse import urlparse

from processes import cpu_seconds_below, listeners
from programs import Task, run_here

from azr_nemo.sandbox.executor import Outcome, Request
from azr_nemo.sandbox.local.jail import PRELOAD, Rung, interpreter, plan
from azr_nemo.sandbox.local.pool import LocalPool

FORKER = """
import gc, importlib, json, os, sys, time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
gc.collect()
gc.freeze()

def used():
    return sum(usage.ru_utime + usage.ru_stime for usage in (getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)))

def child(program, text, expected):
    namespace = {"__name__": "program"}
    exec(program, namespace)
    os._exit(repr(eval(f"f({text})", namespace)) != expected)

for line in sys.stdin:
    work = json.loads(line)
    latencies, wrong, before, start = [], 0, used(), time.perf_counter()
    for program, text, expected in work:
        began = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            try:
                child(program, text, expected)
            finally:
                os._exit(2)
        wrong += os.waitpid(pid, 0)[1] != 0
        latencies.append(time.perf_counter() - began)
    print(json.dumps([time.perf_counter() - start, used() - before, latencies, wrong]), flush=True)
"""


@dataclass(frozen=True)
class Round:
    """Wall time of some tasks, CPU time (None where it is not known), and the seconds each task took from start to end."""

    seconds: float
    cpu_s: float | None
    latencies: list[float]


class Contender(Protocol):
    def run(self, tasks: Sequence[Task], depth: int) -> Round:
        """Runs the tasks with at most `depth` of them on their way; ends the benchmark when an output is wrong."""
        ...


@dataclass
class Queued:
    """Whoever takes a task and gives a future. read: the outputs in what it yields. server: processes that count and are not below this one; None
    when there are some whose CPU cannot be known."""

    name: str
    submit: Callable[[Task], Future[Any]]
    read: Callable[[Any], list[str | None]]
    server: list[int] | None = field(default_factory=list)

    def run(self, tasks: Sequence[Task], depth: int) -> Round:
        latencies, futures = [], []
        room: SimpleQueue[None] = SimpleQueue()  # written in C: the measuring must cost little beside what it measures
        for _ in range(depth):
            room.put(None)

        def done(began: float, _: Future[Any]) -> None:
            latencies.append(time.perf_counter() - began)
            room.put(None)

        below, here, start = self._below(), time.process_time(), time.perf_counter()
        for task in tasks:
            room.get()
            began = time.perf_counter()
            futures.append(self.submit(task))
            futures[-1].add_done_callback(partial(done, began))
        for _ in range(depth):
            room.get()
        seconds, here = time.perf_counter() - start, time.process_time() - here
        cpu_s = here + self._below() - below if self.server is not None else None
        for task, future in zip(tasks, futures, strict=True):
            demand(self.name, task, self.read(future.result()))
        return Round(seconds, cpu_s, latencies)

    def _below(self) -> float:
        """CPU time of all processes but this one."""
        return cpu_seconds_below(self.server or [])


class ExecHere:
    """The floor: the program in this process."""

    def run(self, tasks: Sequence[Task], depth: int) -> Round:
        clock, outputs, before = [time.perf_counter()], [], time.process_time()
        for task in tasks:
            outputs.append([run_here(task.program, text) for text in task.inputs])
            clock.append(time.perf_counter())
        cpu_s = time.process_time() - before
        for task, output in zip(tasks, outputs, strict=True):
            demand("exec", task, output)
        return Round(clock[-1] - clock[0], cpu_s, [later - earlier for earlier, later in pairwise(clock)])


class BareForks:
    """The limit of a fork per program: processes that fork, and of whose forks each executes one program. A process a worker, each with its share
    of the tasks; one when the depth is 1."""

    def __init__(self, workers: int, stack: ExitStack):
        command = [interpreter(), "-s", "-P", "-S", "-c", FORKER, json.dumps(PRELOAD)]
        environment = {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"} | {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
        start = partial(subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.processes: list[subprocess.Popen[str]] = [stack.enter_context(start()) for _ in range(workers)]

    def run(self, tasks: Sequence[Task], depth: int) -> Round:
        processes = self.processes[:depth]
        for place, process in enumerate(processes):
            share = [(task.program, task.inputs[0], task.expected[0]) for task in tasks[place :: len(processes)]]
            print(json.dumps(share), file=process.stdin, flush=True)
        answers = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
        if wrong := sum(answer[3] for answer in answers):
            sys.exit(f"bare fork: {wrong} wrong outcomes")
        seconds, cpu_s, latencies, _ = zip(*answers, strict=True)
        return Round(max(seconds), sum(cpu_s), list(chain(*latencies)))


def demand(name: str, task: Task, outputs: Sequence[str | None]) -> None:
    if list(outputs) != list(task.expected):
        sys.exit(f"{name}: a wrong outcome\n{task.program}\ninputs {task.inputs}\nexpected {task.expected}\nfound {tuple(outputs)}")


def local_pool(name: str, pool: LocalPool) -> Queued:
    def values(outcomes: list[Outcome]) -> list[str | None]:
        return [outcome.value for outcome in outcomes]

    return Queued(name, lambda task: pool.submit(Request(task.program, task.inputs)), values)


def without_isolation(workers: int) -> LocalPool:
    """A pool whose workers install neither landlock nor a system-call filter: an unjailed plan keeps them where it can."""
    kept = plan(Rung.UNJAILED)
    return LocalPool(workers, rung=replace(kept, first_frame={**kept.first_frame, "filter": "", "landlock": False}))


def pebble_pool(workers: int, stack: ExitStack) -> Queued:
    """The reference's pool. Its tasks have one input; the reference hands each over as a map of one snippet's lines."""
    try:
        from pebble import ProcessPool
    except ImportError:
        sys.exit("the peer of this benchmark is not installed: pip install pebble")
    pool = stack.enter_context(ProcessPool(max_workers=workers))
    execute = partial(ReferenceRuntime.execute, runtime=ReferenceRuntime())

    def submit(task: Task) -> Future[Any]:
        lines = f"{task.program}\nrepr(f({task.inputs[0]}))".split("\n")
        return pool.map(execute, [lines], timeout=10)

    return Queued("pebble", submit, list)


class ReferenceRuntime:
    """What the reference's worker does with a snippet: exec of all lines but the last and eval of that one, each under an alarm, then a check that
    the result pickles."""

    def __init__(self) -> None:
        self.variables: dict[str, Any] = {}

    @staticmethod
    def execute(lines: list[str], runtime: "ReferenceRuntime") -> str:
        under_alarm(runtime.exec_code, "\n".join(lines[:-1]))
        result = under_alarm(runtime.eval_code, lines[-1])
        pickle.dumps(result)
        return str(result)

    def exec_code(self, code: str) -> None:
        if re.search(r"(\s|^)?input\(", code):
            raise RuntimeError
        exec(code, self.variables)  # noqa: S102

    def eval_code(self, expression: str) -> Any:
        return eval(expression, self.variables)  # noqa: S307


def under_alarm(action: Callable[[str], Any], text: str) -> Any:
    def expired(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, 10)
    try:
        return action(text)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def sandbox_fusion(endpoint: str, stack: ExitStack) -> Queued:
    """A server, asked by the official client, four requests at a time."""
    from sandbox_fusion import RunCodeRequest, run_code

    def ask(task: Task) -> str:
        code = f"{task.program}\nprint(repr(f({task.inputs[0]}\n)))"
        answer = run_code(RunCodeRequest(code=code, language="python"), endpoint=endpoint, max_attempts=2, client_timeout=30)
        return (answer.run_result and answer.run_result.stdout) or ""

    threads = stack.enter_context(ThreadPoolExecutor(4))
    address = urlparse(endpoint)
    here = address.hostname in ("localhost", "127.0.0.1", "::1")
    server = listeners(address.port or 80) if here else []
    return Queued("Sandbox-Fusion", lambda task: threads.submit(ask, task), lambda text: [text.removesuffix("\n")], server or None)
