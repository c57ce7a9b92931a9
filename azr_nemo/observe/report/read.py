"""Reads a run's directory for its report: metrics, configuration, versions and tasks. It needs no torch and writes nothing there."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.observe.lanes import Span, read_lanes
from azr_nemo.observe.pictures import mean
from azr_nemo.observe.report.attempts import AttemptFiles, Tried
from azr_nemo.observe.summary import rows_by_step
from azr_nemo.tasks.task import TaskType

POINTS = 1000  # of a series; a longer one is drawn by means of neighbouring steps
TASKS = 20_000  # of a run in the browser, the newest; beyond that a page gets slow

Value = float | None  # None: a gap
COLUMNS = 'id, type, program, inputs, outputs, message, program_hash, lines, step, is_seed, "references", attempts, solved, thought'


@dataclass(frozen=True)
class Series:
    """A metric by step, ascending."""

    steps: list[float]
    values: list[Value]

    def __bool__(self) -> bool:
        return any(value is not None for value in self.values)

    def at(self) -> dict[float, float]:
        """The values that are there, by step."""
        return {step: value for step, value in zip(self.steps, self.values, strict=True) if value is not None}


@dataclass(frozen=True)
class TaskRow:
    """A task as the buffer holds it. attempts, solved: answers so far and how many were right."""

    id: int
    type: TaskType
    program: str
    inputs: list[str]
    outputs: list[str]
    message: str
    program_hash: str
    lines: int
    step: int
    is_seed: bool
    references: list[int]
    attempts: int
    solved: int
    thought: str


@dataclass(frozen=True)
class Run:
    """What a report shows of one run. config: settings as YAML, "" when no checkpoint is there yet. outcome: how it ended, "" while nobody knows.
    tried: what the rollouts say, by task. lanes: by step, who did what when. notes: sentences on what is missing."""

    name: str
    directory: Path
    series: dict[str, Series]
    last_step: int
    config: str
    versions: dict[str, str]
    outcome: str
    tasks: list[TaskRow]
    tried: dict[int, Tried]
    notes: list[str] = field(default_factory=list)
    lanes: dict[int, list[Span]] = field(default_factory=dict)


class Reader:
    """Reads one run again and again; of its rollouts only the files that are new."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.name = directory, name
        self._attempts = AttemptFiles(directory)

    def read(self) -> Run:
        """Raises UserError when there is no run or it has not finished a step yet. Whatever else is missing or damaged becomes a note."""
        rows = rows_by_step(self.directory)
        notes: list[str] = []
        found = tasks(self.directory, notes)
        return Run(
            self.name,
            self.directory,
            series_of(rows),
            max(rows),
            _config(self.directory, notes),
            _versions(self.directory, notes),
            _text(self.directory / "outcome").strip(),
            found,
            self._attempts.read(notes),
            notes,
            _lanes(self.directory, notes),
        )

    def stamp(self) -> tuple[Any, ...]:
        """Differs once anything that `read` looks at has changed."""
        names = ("metrics.jsonl", "lanes.jsonl", "buffer.sqlite", "buffer.sqlite-wal", "outcome", "versions.json", "checkpoints/latest")
        return (*(_stamp(self.directory / name) for name in names), self._attempts.stamp())


def _lanes(directory: Path, notes: list[str]) -> dict[int, list[Span]]:
    try:
        return read_lanes(directory)
    except UserError as error:
        notes.append(f"The lanes of its steps cannot be read: {error}.")
        return {}


def names(directories: Sequence[Path]) -> list[str]:
    """What to call each run: its directory's name, with the parent's where two are alike, with a number where those are, too."""
    found = [path.resolve() for path in directories]
    short = [path.name if [other.name for other in found].count(path.name) == 1 else f"{path.parent.name}/{path.name}" for path in found]
    return [name if short.count(name) == 1 else f"{name} ({short[: place + 1].count(name)})" for place, name in enumerate(short)]


def series_of(rows: dict[int, dict[str, Any]]) -> dict[str, Series]:
    """The metrics by name. A value that was not finite is a gap, and so is one that a finished step lacks between two that have it; not so for
    held-out accuracy, which most steps lack."""
    finished = [step for step, row in rows.items() if "step/seconds" in row]
    series: dict[str, Series] = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        steps = [step for step, row in rows.items() if name in row]
        if not name.startswith("eval/"):
            steps = sorted({*steps, *(step for step in finished if steps[0] < step < steps[-1])})
        values = [rows[step].get(name) for step in steps]
        kept = Series(list(steps), [float(value) if isinstance(value, int | float) else None for value in values])
        if kept:
            series[name] = kept
    return series


def thinned(series: Series, points: int = POINTS) -> Series:
    """At most so many points: means over as many neighbouring steps as that takes."""
    size = -(-len(series.steps) // points)
    if size <= 1:
        return series
    starts = range(0, len(series.steps), size)
    steps = [sum(part) / len(part) for part in (series.steps[start : start + size] for start in starts)]
    return Series(steps, [mean(series.values[start : start + size]) for start in starts])


def checkpoints(directory: Path) -> Iterator[Path]:
    """The run's checkpoints, the latest first."""
    folder = directory / "checkpoints"
    latest = _text(folder / "latest").strip()
    found = sorted((path for path in folder.glob("step_*") if path.is_dir()), reverse=True)
    yield from sorted(found, key=lambda path: path.name != latest)  # stable: the others stay in their order


def tasks(directory: Path, notes: list[str]) -> list[TaskRow]:
    """Of the run's own buffer or, where that cannot be read, of its latest checkpoint that can."""
    own = directory / "buffer.sqlite"
    places = [(own, "mode=ro")] + [(path / "buffer.sqlite", "mode=ro&immutable=1") for path in checkpoints(directory)]
    for path, how in places:
        if not path.is_file():
            continue
        try:
            tasks = _rows(path, how)
        except (sqlite3.DatabaseError, ValueError) as error:
            notes.append(f"The task buffer {path.relative_to(directory)} cannot be read ({error}).")
            continue
        if path != own:
            notes.append(f"The tasks are those of {path.relative_to(directory)}.")
        return tasks
    notes.append("There is no task buffer, so there are no tasks to show.")
    return []


def _rows(path: Path, how: str) -> list[TaskRow]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=10)) as database:
        rows = database.execute(f"SELECT {COLUMNS} FROM tasks ORDER BY id").fetchall()
    return [_task(*row) for row in rows]


def _task(id: int, type: str, program: str, inputs: str, outputs: str, message: str, program_hash: str, *rest: Any) -> TaskRow:
    lines, step, is_seed, references, attempts, solved, thought = rest
    shown = list(json.loads(references))
    pairs = list(json.loads(inputs)), list(json.loads(outputs))
    return TaskRow(
        id, TaskType.new(type), program, *pairs, message, program_hash, lines, step, bool(is_seed), shown, attempts, solved, thought
    )


def _config(directory: Path, notes: list[str]) -> str:
    for path in checkpoints(directory):
        if text := _text(path / "config.yaml"):
            return text
    notes.append("There is no checkpoint with a configuration yet.")
    return ""


def _versions(directory: Path, notes: list[str]) -> dict[str, str]:
    try:
        return {str(name): str(version) for name, version in json.loads((directory / "versions.json").read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        notes.append("The run has not recorded the versions of its packages.")
        return {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
