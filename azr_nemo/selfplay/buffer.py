"""The task buffer: every validated task of a run, one SQLite row each, deduplicated, sampled by both roles and bounded per task type.

One process writes and reads it, from any of its threads. SQLite runs in WAL mode with synchronous=NORMAL, so a process killed at any moment
leaves the buffer as it was after its last finished transaction.
"""

import hashlib
import json
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from azr_nemo.errors import UserError
from azr_nemo.selfplay.drawing import WEIGHTS, Candidate
from azr_nemo.selfplay.storage import explained, image_of, open_database, read_image, write_image
from azr_nemo.tasks.parsing import storable
from azr_nemo.tasks.program import body_lines, canonical_input, program_hash
from azr_nemo.tasks.program_shape import shape
from azr_nemo.tasks.task import Task, TaskType

COLUMNS = 'id, type, program, inputs, outputs, message, step, is_seed, "references", attempts, solved, lines, thought'


@dataclass(frozen=True)
class StoredTask:
    """A task in the buffer. step: when it was created, 0 for seeds. references: ids of the tasks its proposer was shown.
    attempts, solved: solver samples so far and how many were right. lines: of the program's body. thought: the proposer's reasoning."""

    id: int
    task: Task
    step: int
    is_seed: bool
    references: tuple[int, ...]
    attempts: int
    solved: int
    lines: int
    thought: str = ""


@dataclass(frozen=True)
class BufferStatistics:
    """tasks: rows per type. programs: distinct normalised programs. lines: mean body length. solve_rate: mean over the attempted tasks."""

    tasks: dict[TaskType, int]
    seeds: int
    programs: int
    lines: float
    solve_rate: float | None


class TaskBuffer:
    """At most `capacity` tasks per type. A full type evicts its oldest task that is no seed and never the one just added, so the newest
    always survive (the published code drops them); seeds stay even beyond the capacity.

    Two tasks are the same when type, normalised program and canonical inputs agree; the second one is refused.
    Raises UserError when the file is no buffer, is damaged, cannot be written or the disk is full.
    """

    def __init__(self, path: Path, capacity: int):
        if capacity < 1:
            raise UserError(f"selfplay.buffer_capacity must be at least 1, not {capacity}")
        self.path, self.capacity = path, capacity
        self._lock = threading.RLock()
        self._depth = 0
        self._candidates: dict[tuple, list[Candidate]] = {}  # per query, until the next write
        self._shapes: dict[int, str] = {}  # of tasks that were asked for
        self._db = open_database(path)

    @classmethod
    def restore(cls, backup: Path, path: Path, capacity: int) -> Self:
        """Puts a copy of `backup` in place of the database at `path`, which must not be open, and opens it. Ids go on where the backup's
        ended, so a resumed run numbers its tasks as an uninterrupted one. UserError when the backup is missing or damaged."""
        write_image(read_image(backup), path)
        return cls(path, capacity)

    def image(self) -> bytes:
        """The buffer as it is now, as the bytes of one SQLite file: what `restore` takes."""
        with self._lock, explained(self.path):
            if self._depth:
                raise RuntimeError("an image inside a transaction would hold half of it")
            return image_of(self._db)

    def backup(self, to: Path) -> None:
        """Writes the image to one file: written aside, flushed to disk and renamed, so that `to` is never half a buffer."""
        write_image(self.image(), to)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become visible together or, after an exception or a kill, not at all. Nests; other threads wait."""
        with self._lock, explained(self.path):
            outermost = self._depth == 0
            if outermost:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if outermost:
                    self._db.execute("COMMIT")
            except BaseException:
                if outermost and self._db.in_transaction:  # a full disk may have rolled back already
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1
                self._candidates.clear()

    def add(self, task: Task, step: int, seed: bool = False, references: Iterable[int] = (), thought: str = "") -> int | None:
        """Stores a validated task and returns its id, or None when the buffer has it already. references: ids its proposer was shown."""
        row = {
            "type": task.type.value,
            "program": task.program,
            "inputs": json.dumps(task.inputs),
            "outputs": json.dumps(task.outputs),
            "message": storable(task.message),
            "key": self.key(task),
            "program_hash": self.program_key(task),
            "lines": body_lines(task.program),
            "step": step,
            "is_seed": int(seed),
            "references": json.dumps(list(references)),
            "thought": storable(thought),
        }
        names = ", ".join(f'"{name}"' for name in row)
        values = ", ".join(f":{name}" for name in row)
        with self.transaction():
            # Asked first rather than left to ON CONFLICT, which would use up an id: a refused task must not shift later ids.
            if self._rows("SELECT 1 FROM tasks WHERE key = ?", row["key"]):
                return None
            id = self._db.execute(f"INSERT INTO tasks ({names}) VALUES ({values})", row).lastrowid
            assert id is not None
            self._evict(task.type, id)
            return id

    def _evict(self, type: TaskType, newest: int) -> None:
        excess = self.count(type) - self.capacity
        if excess > 0:
            self._db.execute(
                "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE type = ? AND NOT is_seed AND id <> ? ORDER BY step, id LIMIT ?)",
                (type.value, newest, excess),
            )

    def record(self, id: int, solved: int, attempts: int) -> None:
        """Adds solver samples to a task's counts; a task that was evicted meanwhile is left alone."""
        if not 0 <= solved <= attempts:
            raise ValueError(f"{solved} solved of {attempts} attempts")
        with self.transaction():
            self._db.execute("UPDATE tasks SET attempts = attempts + ?, solved = solved + ? WHERE id = ?", (attempts, solved, id))

    def remove_after(self, step: int) -> int:
        """Drops the tasks created after `step` and returns how many. What they had evicted is gone; `restore` brings that back too."""
        with self.transaction():
            return self._db.execute("DELETE FROM tasks WHERE step > ?", (step,)).rowcount

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        """Keeps a small JSON object beside the tasks, in the same transactions and backups."""
        with self.transaction():
            self._db.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, json.dumps(value)))

    def read_note(self, name: str) -> dict[str, Any]:
        """The object kept under this name; empty when there is none."""
        rows = self._rows("SELECT value FROM notes WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else {}

    # Reading

    @staticmethod
    def key(task: Task) -> str:
        """What makes a task the same as another: type, normalised program, canonical inputs. The message does not count."""
        parts = [task.type.value, program_hash(task.program), *map(canonical_input, task.inputs)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @staticmethod
    def program_key(task: Task) -> str:
        """What makes a task's program the same as another's: its normalised syntax tree."""
        return program_hash(task.program)

    def contains(self, task: Task) -> bool:
        return bool(self._rows("SELECT 1 FROM tasks WHERE key = ?", self.key(task)))

    def knows_program(self, program: str) -> bool:
        """Whether any task, of whatever type, has this program up to normalisation."""
        return bool(self._rows("SELECT 1 FROM tasks WHERE program_hash = ? LIMIT 1", program_hash(program)))

    def get(self, id: int) -> StoredTask | None:
        rows = self._stored("id = ?", id)
        return rows[0] if rows else None

    def tasks(self, *types: TaskType) -> list[StoredTask]:
        """The tasks of these types (of all, when none is named), oldest first."""
        chosen = types or tuple(TaskType)
        return self._stored(f"type IN ({_marks(chosen)}) ORDER BY id", *chosen)

    def recent(self, type: TaskType, step: int) -> list[StoredTask]:
        """The tasks of this type that were created at exactly this step, in the order of their creation."""
        return self._stored("type = ? AND step = ? ORDER BY id", type.value, step)

    def count(self, type: TaskType | None = None) -> int:
        """How many tasks of this type, or of all."""
        if type is None:
            return self._rows("SELECT COUNT(*) FROM tasks")[0][0]
        return self._rows("SELECT COUNT(*) FROM tasks WHERE type = ?", type.value)[0][0]

    def shapes(self, type: TaskType) -> Counter[str]:
        """How many tasks of this type have a program of each shape (azr_nemo/tasks/program_shape.py)."""
        rows = self._rows("SELECT id, program FROM tasks WHERE type = ?", type.value)
        with self._lock:
            self._shapes |= {id: shape(program) for id, program in rows if id not in self._shapes}
            return Counter(self._shapes[id] for id, _ in rows)

    @property
    def steps(self) -> list[int]:
        """The steps that have tasks here, ascending."""
        return [step for (step,) in self._rows("SELECT DISTINCT step FROM tasks ORDER BY step")]

    def lengths(self, type: TaskType) -> list[int]:
        """The body lengths that occur, ascending: what `sample(lines=...)` can be asked for."""
        return [lines for (lines,) in self._rows("SELECT DISTINCT lines FROM tasks WHERE type = ? ORDER BY lines", type.value)]

    def sample(
        self,
        type: TaskType,
        count: int,
        rng: random.Random,
        strategy: str = "uniform",
        since_step: int | None = None,
        exclude: Collection[int] = (),
        lines: int | None = None,
        only: Callable[[Candidate], bool] | None = None,
    ) -> list[StoredTask]:
        """Draws up to `count` distinct tasks of a type; fewer when fewer exist. The draw depends on rng and the buffer's content alone.

        strategy: uniform, or the name of a weight (azr_nemo/selfplay/drawing.py).
        since_step: only tasks created at this step or later. exclude: ids. lines: only programs whose body has this many lines. only: which tasks.
        """
        rows = self._query(type, since_step, lines)
        if exclude:
            left_out = set(exclude)
            rows = [row for row in rows if row.id not in left_out]
        if only is not None:
            rows = [row for row in rows if only(row)]
        count = min(count, len(rows))
        if strategy == "uniform":
            ids = [row.id for row in rng.sample(rows, count)]
        elif strategy in WEIGHTS:
            # Efraimidis and Spirakis (2006): the largest log(u) / weight are a weighted draw without replacement.
            keyed = [(math.log(1.0 - rng.random()) / WEIGHTS[strategy](row), row.id) for row in rows]
            ids = [id for _, id in nlargest(count, keyed)]
        else:
            raise ValueError(f"no sampling strategy {strategy!r}: uniform, {', '.join(WEIGHTS)}")
        found = {stored.id: stored for chunk in _chunks(ids) for stored in self._stored(f"id IN ({_marks(chunk)})", *chunk)}
        return [found[id] for id in ids]

    def statistics(self) -> BufferStatistics:
        tasks = {type: self.count(type) for type in TaskType}
        seeds, programs, lines, rate = self._rows(
            "SELECT COALESCE(SUM(is_seed), 0), COUNT(DISTINCT program_hash), COALESCE(AVG(lines), 0.0),"
            " AVG(CASE WHEN attempts > 0 THEN 1.0 * solved / attempts END) FROM tasks"
        )[0]
        return BufferStatistics(tasks, seeds, programs, lines, rate)

    def _query(self, type: TaskType, since_step: int | None, lines: int | None) -> list[Candidate]:
        """The tasks that may be drawn. A step draws for hundreds of prompts between two writes, so the list is kept."""
        query = (type, since_step, lines)
        with self._lock:
            if query not in self._candidates:
                sql, values = "SELECT id, step, lines, attempts, solved FROM tasks WHERE type = ?", list[Any]([type.value])
                for condition, value in ((" AND step >= ?", since_step), (" AND lines = ?", lines)):
                    if value is not None:
                        sql += condition
                        values.append(value)
                self._candidates[query] = [Candidate(*row) for row in self._rows(sql + " ORDER BY id", *values)]
            return self._candidates[query]

    def _stored(self, condition: str, *values: Any) -> list[StoredTask]:
        return [_stored_task(row) for row in self._rows(f"SELECT {COLUMNS} FROM tasks WHERE {condition}", *values)]

    def _rows(self, sql: str, *values: Any) -> list[tuple]:
        with self._lock, explained(self.path):
            return self._db.execute(sql, values).fetchall()


def _stored_task(row: tuple) -> StoredTask:
    id, type, program, inputs, outputs, message, step, is_seed, references, attempts, solved, lines, thought = row
    task = Task(TaskType(type), program, tuple(json.loads(inputs)), tuple(json.loads(outputs)), message)
    return StoredTask(id, task, step, bool(is_seed), tuple(json.loads(references)), attempts, solved, lines, thought)


def _marks(values: Collection) -> str:
    return ", ".join("?" * len(values))


def _chunks(ids: list[int], size: int = 500) -> Iterator[list[int]]:
    """SQLite bounds the number of parameters of one statement (999 in older builds)."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
