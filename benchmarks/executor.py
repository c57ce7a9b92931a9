"""The executor against its peers and its limits, in one run: programs a second, CPU of the whole process tree, latency.

    python benchmarks/executor.py                        # the programs of programs.py
    python benchmarks/executor.py --data FILE.jsonl      # rows {"snippet" or "code", "input"} that one trusts: they also run without a jail
    SANDBOX_FUSION_ENDPOINT=http://localhost:8080 python benchmarks/executor.py

A program is one execution: one program with one input. The peer is pebble's ProcessPool as the reference AZR code uses it, without isolation,
one task a program; the ten inputs of a request of ours are ten tasks there. The limits: exec in this process; and a bare fork, in which a
process with our workers' modules forks, calls exec in the child, and waits, nothing else. These two have no queue to wait in.

A latency is that of a request, with 1 or 64 of them on their way; in one row it has ten inputs. The contenders take turns, so a busy machine
slows them alike; the table gives medians of the rounds, the ratios are medians of the rounds' ratios and are what to rely on. CPU counts this
process and all that it started, and a Sandbox-Fusion server's when it runs here. Every output is checked.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from contenders import BareForks, Contender, ExecHere, local_pool, pebble_pool, sandbox_fusion, without_isolation
from processes import adopt_orphans
from programs import TEN, Task, builtin_tasks, read_tasks
from rich.console import Console
from rich.progress import track
from rich.table import Table

from azr_nemo.sandbox.executor import Request
from azr_nemo.sandbox.local.pool import LocalPool

OURS, OURS_TEN, OPEN, PEER, PEER_TEN = "ours, 1 input", "ours, 10 inputs", "ours, isolation off", "pebble, 1 input", "pebble, 10 inputs"
HERE, BARE, FUSION = "exec in this process", "bare fork + exec", "Sandbox-Fusion"
NO_QUEUE = (HERE, BARE)
DEEP = 64
FUSION_SHARE = 10  # Sandbox-Fusion is given one program of so many, because it is slow


@dataclass
class Row:
    """One contender on one list of tasks. programs_per_s and cpu_ms: one number a round. latencies: seconds, by depth of the queue."""

    name: str
    contender: Contender
    tasks: list[Task]
    programs_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    latencies: dict[int, list[float]] = field(default_factory=lambda: {1: [], DEEP: []})

    def take_turn(self) -> None:
        """All tasks from a deep queue, then a quarter of them one by one."""
        executions = sum(len(task.inputs) for task in self.tasks)
        deep = self.contender.run(self.tasks, DEEP)
        self.programs_per_s.append(executions / deep.seconds)
        if deep.cpu_s is not None:
            self.cpu_ms.append(1e3 * deep.cpu_s / executions)
        if self.name not in NO_QUEUE:
            self.latencies[DEEP] += deep.latencies
        self.latencies[1] += self.contender.run(self.tasks[: max(1, len(self.tasks) // 4)], 1).latencies

    def cells(self) -> list[str]:
        waits = [
            f"{1e3 * quantile(self.latencies[depth], q):.1f}" if self.latencies[depth] else "-" for depth in (1, DEEP) for q in (50, 99)
        ]
        cpu = f"{statistics.median(self.cpu_ms):.2f}" if self.cpu_ms else "-"
        return [self.name, f"{statistics.median(self.programs_per_s):.0f}", cpu, *waits]


@dataclass(frozen=True)
class Ratio:
    """value: the median of the rounds' ratios; None when a row has no such number."""

    what: str
    value: float | None
    target: float
    at_least: bool

    def line(self) -> str:
        if self.value is None:
            return f"{self.what}: not measured"
        met = self.value >= self.target if self.at_least else self.value <= self.target
        return f"{self.what}: {self.value:.2f}x, target {'at least' if self.at_least else 'at most'} {self.target:g}x: {'met' if met else 'missed'}"


def main() -> None:
    args = parse_arguments()
    adopt_orphans()
    with ExitStack() as stack:
        peer = pebble_pool(args.workers, stack)  # first, because it forks this process
        peer.run(parts(builtin_tasks()[0]), DEEP)
        ours = stack.enter_context(LocalPool(args.workers))
        tasks = trusted_tasks(args.data, ours) if args.data else builtin_tasks()
        one, ten = single(tasks, args.programs), [tasks[place % len(tasks)] for place in range(args.programs)]
        rows = [
            Row(OURS, local_pool(OURS, ours), one),
            Row(OURS_TEN, local_pool(OURS_TEN, ours), ten),
            Row(OPEN, local_pool(OPEN, stack.enter_context(without_isolation(args.workers))), one),
            Row(PEER, peer, one),
            Row(PEER_TEN, peer, [part for task in ten for part in parts(task)]),
            Row(HERE, ExecHere(), one),
            Row(BARE, BareForks(args.workers, stack), one),
        ]
        if endpoint := os.environ.get("SANDBOX_FUSION_ENDPOINT"):
            rows.append(Row(FUSION, sandbox_fusion(endpoint, stack), one[: max(1, args.programs // FUSION_SHARE)]))
        title = f"{ours.describe()}; {len(tasks)} programs, {args.rounds} rounds of {args.programs} requests; Python {platform.python_version()}"
        play(rows, args.rounds)
    report(title, rows, ratios({row.name: row for row in rows}), args.json)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="of every contender that has workers")
    parser.add_argument("--programs", type=int, default=400, help="requests a round and row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--data", type=Path, help='JSONL of {"snippet" or "code", "input"}, trusted; without it, the programs of programs.py'
    )
    parser.add_argument("--json", type=Path, help="write all numbers to this file too")
    return parser.parse_args()


def trusted_tasks(path: Path, pool: LocalPool) -> list[Task]:
    """The file's tasks, but those that our executor does not find deterministic and a literal: the others have one right outcome."""
    tasks = read_tasks(path)
    outcomes = pool.run(Request(task.program, task.inputs[:1], deterministic=True) for task in tasks)
    kept = [task for task, (outcome,) in zip(tasks, outcomes, strict=True) if outcome.ok]
    if not kept:
        sys.exit(f"{path}: no row is left to run")
    print(f"{path}: {len(kept)} programs; left out as not deterministic or no literal: {len(tasks) - len(kept)}")
    return kept


def single(tasks: list[Task], count: int) -> list[Task]:
    """`count` tasks of one input: every program's first inputs, then the second ones, and so on."""
    spread = [parts(task)[place] for place in range(TEN) for task in tasks]
    return [spread[place % len(spread)] for place in range(count)]


def parts(task: Task) -> list[Task]:
    """A task for each input."""
    return [Task(task.program, (text,), (output,)) for text, output in zip(task.inputs, task.expected, strict=True)]


def play(rows: list[Row], rounds: int) -> None:
    """The rows in turn; a first turn of a few tasks each is not counted."""
    for row in rows:
        row.contender.run(row.tasks[:8], DEEP)
    for _ in track(range(rounds), "rounds", transient=True, console=Console(stderr=True)):
        for row in rows:
            row.take_turn()


def ratios(rows: dict[str, Row]) -> list[Ratio]:
    def median(upper: str, lower: str, numbers: Callable[[Row], list[float]]) -> float | None:
        pairs = [a / b for a, b in zip(numbers(rows[upper]), numbers(rows[lower]), strict=True)] if {upper, lower} <= set(rows) else []
        return statistics.median(pairs) if pairs else None

    def speed(row: Row) -> list[float]:
        return row.programs_per_s

    def cost(row: Row) -> list[float]:
        return row.cpu_ms

    per_cpu_second = median(FUSION, OURS, cost) if FUSION in rows and rows[FUSION].cpu_ms else None
    return [
        Ratio("programs/s with 10 inputs, ours to pebble", median(OURS_TEN, PEER_TEN, speed), 3.0, True),
        Ratio("CPU a program of 1 input, ours to bare fork + exec", median(OURS, BARE, cost), 1.6, False),
        Ratio("programs/s, isolation on to off", median(OURS, OPEN, speed), 0.9, True),
        Ratio("programs a CPU second, ours (1 input) to Sandbox-Fusion", per_cpu_second, 12.0, True),
    ]


def report(title: str, rows: list[Row], found: list[Ratio], path: Path | None) -> None:
    print(title)
    table = Table("contender")
    for heading in ("programs/s", "CPU ms/program", "p50 ms", "p99 ms", f"p50 ms, {DEEP} deep", f"p99 ms, {DEEP} deep"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row.cells())
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for ratio in found:
        print(ratio.line())
    if path:
        numbers = [{"name": row.name, "programs_per_s": row.programs_per_s, "cpu_ms": row.cpu_ms, **latencies(row)} for row in rows]
        path.write_text(
            json.dumps({"title": title, "rows": numbers, "ratios": [asdict(ratio) for ratio in found]}, indent=1) + "\n", encoding="utf-8"
        )


def latencies(row: Row) -> dict[str, Any]:
    return {f"p{q}_ms_depth_{depth}": 1e3 * quantile(waits, q) for depth, waits in row.latencies.items() if waits for q in (50, 99)}


def quantile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


if __name__ == "__main__":
    main()
