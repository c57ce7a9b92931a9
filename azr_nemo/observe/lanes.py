"""Who did what when in a step, and who waited for whom: spans of seconds, a lane for each phase."""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from azr_nemo.errors import UserError
from azr_nemo.json_lines import objects

FILE = "lanes.jsonl"
ORDER = ("propose", "estimate", "solve", "update", "refit")  # from the top; others below


@dataclass(frozen=True)
class Span:
    """began, ended: seconds since the step began. A lane of sampling ends with its longest response, whatever shares its batch."""

    lane: str
    began: float
    ended: float


class Lanes:
    """The spans of the step in hand."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._origin = now()
        self._spans: list[Span] = []

    def add(self, lane: str, began: float, ended: float) -> None:
        """began, ended: by `now`."""
        self._spans.append(Span(lane, began - self._origin, ended - self._origin))

    def lap(self) -> list[Span]:
        """The spans since the last lap; then starts anew."""
        spans, self._spans, self._origin = self._spans, [], self.now()
        return spans


def ordered(spans: Iterable[Span]) -> list[str]:
    """The lanes that occur, from the top."""
    found = dict.fromkeys(span.lane for span in spans)
    return sorted(found, key=lambda lane: ORDER.index(lane) if lane in ORDER else len(ORDER))


def lanes_text(spans: list[Span], width: int = 60) -> str:
    """A line for each lane, `width` characters from the step's begin to its last span's end: a block where the lane was at work in most of it."""
    if not spans:
        return ""
    whole = max(span.ended for span in spans) or 1.0
    names = ordered(spans)
    lines = []
    for name in names:
        mine = [span for span in spans if span.lane == name]
        middles = [(place + 0.5) * whole / width for place in range(width)]
        bar = "".join("█" if any(span.began <= middle < span.ended for span in mine) else "·" for middle in middles)
        lines.append(f"{name:>{max(map(len, names))}} {bar} {sum(span.ended - span.began for span in mine):.1f} s")
    return "\n".join(lines)


def append_lanes(run_dir: Path, step: int, spans: list[Span]) -> None:
    """Adds a step's line to the run's file. Raises UserError when it cannot."""
    line = {"step": step, "spans": [[span.lane, round(span.began, 4), round(span.ended, 4)] for span in spans]}
    try:
        with (run_dir / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise UserError(f"{run_dir / FILE} cannot be written ({error.strerror}): free some space, or choose another run_dir") from error


def read_lanes(run_dir: Path) -> dict[int, list[Span]]:
    """The spans of each step; of a step that was done again after a resume, the last. A run without the file has none."""
    path = run_dir / FILE
    if not path.is_file():
        return {}

    def broken(number: int, reason: object) -> str:
        return f"{path}, line {number}: {reason}; remove the line"

    return {row["step"]: [Span(lane, began, ended) for lane, began, ended in row["spans"]] for _, row in objects(path, broken)}


def rewind_lanes(run_dir: Path, step: int) -> None:
    """Drops the lines of steps after this one, and one that a kill has cut: a resumed run does those steps again."""
    path = run_dir / FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        with suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
    aside = path.with_name(path.name + ".partial")
    aside.write_bytes(b"".join(kept))
    aside.replace(path)
