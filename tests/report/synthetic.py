"""Run directories as a run would leave them, written directly: of any size, and with whatever texts a model could have written."""

import json
import math
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from azr_nemo.observe.rollout_log import Rollout, path_of, write_step
from azr_nemo.selfplay.storage import open_database
from azr_nemo.tasks.task import Role, TaskType

TYPES = [kind.value for kind in TaskType]


def metrics(directory: Path, steps: int, held_out: bool = True, **more: float) -> None:
    """Writes metrics.jsonl of a run that gets a little better. more: further metrics, the same at every step."""
    rows = []
    for step in range(steps + 1):
        row: dict[str, Any] = {"step": step, "time": 1.8e9 + step}
        for kind in TYPES:
            if held_out and step % 5 == 0:
                middle = 0.2 + 0.5 * step / max(steps, 1)
                row |= {f"eval/{kind}": middle, f"eval/{kind}_low": middle - 0.1, f"eval/{kind}_high": middle + 0.1}
            if step:
                row |= {f"solve/{kind}/accuracy": 0.3, f"solve/{kind}/reward": -0.1, f"propose/{kind}/reward": 0.2}
                row |= {
                    f"propose/{kind}/valid": 0.5,
                    f"propose/{kind}/new": 0.9,
                    f"propose/{kind}/lines": 3.0,
                    f"buffer/{kind}/size": 10.0 * step,
                }
        if step:
            row |= {
                "step/seconds": 2.0,
                "time/propose_s": 1.5,
                "time/update_s": 0.5,
                "memory/propose_rss_gib": 1.0,
                "train/loss": 0.1,
                **more,
            }
        rows.append({name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()})
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def tasks(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Adds tasks to a buffer. What a row leaves out is that of a small deduction task."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(open_database(path)) as database:
        database.execute("BEGIN")
        for place, row in enumerate(rows):
            inputs, outputs = row.get("inputs", ["1"]), row.get("outputs", ["2"])
            program = row.get("program", f"def f(x):\n    return x + {place}")
            values = (
                row.get("id"), row.get("type", "deduction"), program, json.dumps(inputs), json.dumps(outputs), row.get("message", ""),
                f"{path}{place}{row.get('id')}", row.get("program_hash", program), program.count("\n"), row.get("step", 1),
                int(row.get("is_seed", False)), json.dumps(row.get("references", [])), row.get("attempts", 0), row.get("solved", 0),
                row.get("thought", ""),
            )  # fmt: skip
            database.execute(f"INSERT INTO tasks VALUES ({', '.join('?' * len(values))})", values)
        database.execute("COMMIT")


def rollouts(directory: Path, step: int, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes the rollouts of a step. What a row leaves out is that of a right answer."""
    usual = Rollout("estimate", Role.SOLVE, TaskType.DEDUCTION, None, (), "p", "2", "right", 1.0, None, 1)
    write_step(directory, step, [replace(usual, **row) for row in rows])
    return path_of(directory, step)


def large(directory: Path, count: int, attempts: int, length: int = 300) -> None:
    """A run of 100 steps with `count` tasks, each with so many answers of about `length` characters."""
    rng = random.Random(0)
    words = [f"word{n}" for n in range(500)]
    metrics(directory, 100)
    rows: list[dict[str, Any]] = []
    answers: dict[int, list[dict[str, Any]]] = {step: [] for step in range(1, 101)}
    for id in range(1, count + 1):
        step = 1 + 99 * id // (count + 1)
        solved = rng.randint(0, attempts)
        body = "\n".join(f"    x = x + {rng.randint(0, 999)} if x else {rng.choice(words)!r}" for _ in range(rng.randint(1, 12)))
        program, references = f"def f(x):\n{body}\n    return x", rng.sample(range(1, id), min(id - 1, 3))
        rows.append(
            {
                "id": id,
                "type": TYPES[id % 3],
                "program": program,
                "step": step,
                "references": references,
                "attempts": attempts,
                "solved": solved,
            }
        )
        for k in range(attempts):
            right = k < solved
            text = " ".join(rng.choices(words, k=length // 8))
            answers[step].append(
                {
                    "task": id,
                    "completion": text,
                    "outcome": "right" if right else "wrong_value",
                    "reward": 1.0 if right else -0.5,
                }
            )
    tasks(directory / "buffer.sqlite", rows)
    for step, given in answers.items():
        rollouts(directory, step, given)


def damage(path: Path) -> None:
    """Makes a file that is none of its kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0 damaged " * 50)


def wal(path: Path) -> sqlite3.Connection:
    """A writer that has the buffer open, as a run that is going on."""
    return open_database(path)
