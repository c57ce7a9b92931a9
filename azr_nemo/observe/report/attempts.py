"""The answers that a run's rollouts hold (docs/metrics.md), by task: few of each in full, all of them counted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.observe.rollout_log import read_table, stored_steps

SHOWN = 8  # answers of a task that are kept in full, the newest
LONGEST = 4000  # characters of one that is kept; pages may cut further
COLUMNS = ["step", "phase", "task", "completion", "outcome", "reward", "advantage", "response_tokens"]

Stamp = tuple[int, int]


@dataclass(frozen=True)
class Attempt:
    """One answer, or the proposal that a task came from. tokens: of the response. length: characters before it was cut."""

    step: int
    phase: str
    outcome: str
    reward: float | None
    advantage: float | None
    tokens: int | None
    completion: str
    length: int


@dataclass
class Tried:
    """All that rollouts say of a task. answers: the newest, at most SHOWN; outcomes counts all of them. proposal: the text it was made from."""

    answers: list[Attempt] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    proposal: Attempt | None = None

    @property
    def left_out(self) -> int:
        return self.outcomes.total() - len(self.answers)


class AttemptFiles:
    """The Parquet files of a run's rollouts, one a step. What was read of a file is kept until that file changes."""

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self._read: dict[Path, tuple[Stamp, dict[int, Tried]]] = {}

    def read(self, notes: list[str]) -> dict[int, Tried]:
        """By task id. What is missing or cannot be read is said in `notes`."""
        files = self._files()
        if not files:
            notes.append("There are no rollouts, so no answers are shown: logging.rollouts says how many a run keeps.")
        self._read = {path: kept for path, kept in self._read.items() if path in files}
        together: dict[int, Tried] = {}
        damaged = 0
        for path, stamp in files.items():
            kept = self._read.get(path)
            if kept is None or kept[0] != stamp:
                try:
                    kept = self._read[path] = (stamp, _by_task(path))
                except UserError:
                    damaged += 1
                    continue
            for task, tried in kept[1].items():
                _join(together.setdefault(task, Tried()), tried)
        if damaged:
            notes.append(f"{damaged} of {len(files)} files of rollouts cannot be read and are left out.")
        return together

    def stamp(self) -> tuple[Any, ...]:
        """Differs once a file has changed."""
        return tuple(self._files().items())

    def _files(self) -> dict[Path, Stamp]:
        """The newest first."""
        return dict(self._stamps())

    def _stamps(self) -> Iterator[tuple[Path, Stamp]]:
        for path in reversed(stored_steps(self.run_dir).values()):
            try:
                found = path.stat()
            except FileNotFoundError:  # a resumed run has just taken it back
                continue
            yield path, (found.st_mtime_ns, found.st_size)


def shortened(text: str, limit: int, length: int | None = None) -> str:
    """At most about `limit` characters: begin and end, which holds the answer, with a notice between. length: of the text before an earlier cut."""
    if len(text) <= limit and length in (None, len(text)):
        return text
    half = min(limit, len(text)) // 2
    whole = len(text) if length is None else length
    return f"{text[:half]}\n… {whole - 2 * half:,} characters left out …\n{text[-half:]}"


def _by_task(path: Path) -> dict[int, Tried]:
    import pyarrow.compute as pc  # a moment to import, and only runs with rollouts need it

    table = read_table(path, COLUMNS)
    tasks: dict[int, Tried] = {}
    for row in reversed(table.filter(pc.is_valid(table["task"])).to_pylist()):
        tried = tasks.setdefault(row["task"], Tried())
        attempt = Attempt(
            row["step"],
            row["phase"],
            row["outcome"],
            row["reward"],
            row["advantage"],
            row["response_tokens"],
            _ends(row["completion"]),
            len(row["completion"]),
        )
        if row["phase"] == "propose":
            tried.proposal = attempt
            continue
        tried.outcomes[attempt.outcome] += 1
        if len(tried.answers) < SHOWN:
            tried.answers.append(attempt)
    return tasks


def _ends(text: str) -> str:
    """A text so long that no page shows it whole, without its middle."""
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + text[-LONGEST // 2 :]


def _join(newer: Tried, older: Tried) -> None:
    newer.answers.extend(older.answers[: SHOWN - len(newer.answers)])
    newer.outcomes.update(older.outcomes)
    newer.proposal = newer.proposal or older.proposal
