"""Many programs of every kind through one local pool: does it stay right, and does it hold on to memory, files or processes?

    python benchmarks/executor_soak.py                       # 100,000 programs
    python benchmarks/executor_soak.py --programs 2000       # some seconds

A program is one execution: one program with one input. Most are ordinary ones with several inputs; a few percent each run out of time, of memory or
of output, end their process, do not parse, or must be deterministic. After each tenth the pool is let run dry and what it holds is printed. The exit
status is 1 when any outcome was wrong, or when between the second tenth and the last more than this was added: 8 MiB of memory in this process,
4 MiB a process in the workers (both resident), and no open file, zombie, process or temporary file at all.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from processes import tree
from programs import Task, builtin_tasks
from rich.progress import track

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Request, Status
from azr_nemo.sandbox.local.pool import LocalPool

IN_FLIGHT = 256
RECYCLE_AFTER = 200  # often, so that a short run replaces workers too
SETTLE_S = 0.3  # a worker that was just replaced ends a moment later
STARTS_ALL = Request("import time\ndef f(x):\n    return time.sleep(0.1)", ("1",))  # once for each worker: all are there when we look
MIB = 1 << 20
SHORT, SMALL = Limits(wall_s=0.05), Limits(memory_mb=64)
Expected = tuple[tuple[Status, str | None], ...]


@dataclass(frozen=True)
class Case:
    """A request, and the status and value (None when there is none) that each of its inputs must get."""

    request: Request
    expected: Expected


def failing(status: Status, program: str, limits: Limits | None = None, deterministic: bool = False) -> Case:
    return Case(Request(program, ("1",), limits, deterministic), ((status, None),))


def mixed(program: str, status: Status, limits: Limits | None = None) -> Case:
    """A program that is right for 1 and 3, and not for 2: the inputs that follow a failure must get their outcome too."""
    right = Status.OK
    return Case(Request(program, ("1", "2", "3"), limits), ((right, "1"), (status, None), (right, "3")))


RARE = [
    failing(Status.TIMEOUT, "def f(x):\n    while True:\n        pass", SHORT),
    failing(Status.TIMEOUT, "import time\ndef f(x):\n    time.sleep(60)", SHORT),
    failing(Status.TIMEOUT, "while True:\n    pass", SHORT),
    mixed("def f(x):\n    while x == 2:\n        pass\n    return x", Status.TIMEOUT, SHORT),
    failing(Status.CRASHED, "import os\ndef f(x):\n    os._exit(0)"),
    failing(Status.CRASHED, "import os\nos._exit(3)"),
    mixed("import os\ndef f(x):\n    return x if x != 2 else os._exit(1)", Status.CRASHED),
    failing(Status.MEMORY, "def f(x):\n    return len([0] * (1 << 28))", SMALL),
    failing(Status.MEMORY, "def f(x):\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 20))", SMALL),
    mixed("def f(x):\n    return x if x != 2 else len(bytes(1 << 30))", Status.MEMORY, SMALL),
    failing(Status.OUTPUT_TOO_LARGE, "def f(x):\n    return 'x' * 100_000"),
    failing(Status.OUTPUT_TOO_LARGE, "def f(x):\n    return list(range(50_000))"),
    Case(Request("def f(x):\n    for i in range(500):\n        print('flood' * 200)\n    return x", ("1", "2")), ((Status.OK, "1"), (Status.OK, "2"))),
    failing(Status.CRASHED, "import os\ndef f(x):\n    while True:\n        os.write(3, b'x' * 65536)"),
    failing(Status.SYNTAX, "def f(x):\n    return x +"),
    failing(Status.ERROR, "def f(x):\n    raise ValueError(x)"),
    failing(Status.FORBIDDEN, "def f(x):\n    return open('/tmp/soak', 'w').write('x')"),
    failing(Status.NONDETERMINISTIC, "import random\ndef f(x):\n    return random.random()", deterministic=True),
    failing(Status.NONDETERMINISTIC, "def f(x):\n    return list({str(i) for i in range(50)})", deterministic=True),
]  # fmt: skip
RARE_SHARE, DETERMINISTIC_SHARE = 0.2, 0.05


@dataclass(frozen=True)
class Held:
    """What is held while the pool has nothing to do."""

    memory_mib: float  # of this process
    workers_mib: float  # of all below it
    per_worker_mib: float  # mean of the processes below: one that is just being replaced does not change it
    files: int
    zombies: int
    processes: int
    temporary: int


TOLERANCE = {"memory_mib": 8.0, "per_worker_mib": 4.0, "files": 0, "zombies": 0, "processes": 0, "temporary": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder  # other programs use the machine's own
        with LocalPool(args.workers, recycle_after=RECYCLE_AFTER) as pool:
            print(pool.describe())
            held, wrong = soak(pool, args.programs)
        tempfile.tempdir = None
    grown = growth(held[:2], held[-1])
    for line in [*wrong[:5], *grown]:
        print(line)
    print(f"{len(wrong)} wrong outcomes; {'something grew' if grown else 'nothing grew'}")
    sys.exit(1 if wrong or grown else 0)


def soak(pool: LocalPool, programs: int) -> tuple[list[Held], list[str]]:
    """What was held after each tenth, and every wrong outcome in words."""
    draw, ordinary = random.Random(1), builtin_tasks()
    held: list[Held] = []
    wrong: list[str] = []
    print(
        f"{'programs':>9} {'/s':>6} {'MiB':>6} {'workers MiB':>12} {'files':>6} {'zombies':>8} {'processes':>10} {'temp':>5} {'wrong':>6}"
    )
    done, began = 0, time.perf_counter()
    for tenth in track(range(1, 11), "tenths", transient=True, disable=not sys.stdout.isatty()):
        done += run_until(pool, draw, ordinary, programs * tenth // 10 - done, wrong)
        rate = done / (time.perf_counter() - began)
        pool.run([STARTS_ALL] * pool.workers)
        time.sleep(SETTLE_S)
        now = look()
        held.append(now)
        print(
            f"{done:>9} {rate:>6.0f} {now.memory_mib:>6.1f} {now.workers_mib:>12.1f} {now.files:>6} {now.zombies:>8} {now.processes:>10}"
            f" {now.temporary:>5} {len(wrong):>6}",
            flush=True,
        )
    return held, wrong


def run_until(pool: LocalPool, draw: random.Random, ordinary: list[Task], programs: int, wrong: list[str]) -> int:
    """Runs at least so many programs and waits for the last; says how many it were."""
    running: deque[tuple[Case, Future[list[Outcome]]]] = deque()
    done = 0
    while done < programs or running:
        if done < programs and len(running) < IN_FLIGHT:
            case = drawn(draw, ordinary)
            running.append((case, pool.submit(case.request)))
            done += len(case.expected)
        else:
            case, future = running.popleft()
            if fault := judge(case, future):
                wrong.append(fault)
    return done


def drawn(draw: random.Random, ordinary: list[Task]) -> Case:
    if draw.random() < RARE_SHARE:
        return draw.choice(RARE)
    task, count = draw.choice(ordinary), draw.randint(1, 10)
    expected = tuple((Status.OK, value) for value in task.expected[:count])
    return Case(Request(task.program, task.inputs[:count], deterministic=draw.random() < DETERMINISTIC_SHARE), expected)


def judge(case: Case, future: Future[list[Outcome]]) -> str | None:
    """What is wrong with the outcomes, if anything."""
    try:
        outcomes = future.result()
    except ExecutorUnavailable as error:
        return f"no outcome: {error}\n{case.request.program}"
    found = tuple((outcome.status, outcome.value) for outcome in outcomes)
    if found == case.expected:
        return None
    return f"{case.request.program}\ninputs {case.request.inputs}\nexpected {case.expected}\nfound {outcomes}"


def look() -> Held:
    me, *below = tree([os.getpid()])
    workers = sum(process.resident for process in below) / MIB
    return Held(
        memory_mib=me.resident / MIB,
        workers_mib=workers,
        per_worker_mib=workers / max(1, len(below)),
        files=len(os.listdir("/proc/self/fd")),
        zombies=sum(process.state == "Z" for process in below),
        processes=len(below) + 1,
        temporary=sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
    )


def growth(early: list[Held], late: Held) -> list[str]:
    """What grew beyond its tolerance, in words. Of the early ones the largest counts, as a worker may have been missing in one."""
    numbers = [(name, max(getattr(held, name) for held in early), getattr(late, name), most) for name, most in TOLERANCE.items()]
    return [
        f"{name} grew from {before:g} to {after:g}, tolerated {most:g}" for name, before, after, most in numbers if after - before > most
    ]


if __name__ == "__main__":
    main()
