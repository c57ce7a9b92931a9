"""What a child writes on its result pipe: counted by the worker while the child lives, read by whoever asked the worker.

After a fork every page that the worker writes to is copied, or at least faulted in, and that is most of what a fork costs. So the worker looks at no
more of a frame than its length and its first bytes, and passes frames on as they are. What it never reads it cannot leave in the memory of later
forks either. A frame was written by a process that ran a stranger's program: everything in it is checked, and what does not fit is a crash of that
program.
"""

import json
import math
import struct
from typing import Any, NamedTuple

from .canonical import agreed_text, canonical_text, literal_of

Result = tuple[str, str | None, str | None, float, float]  # status, value, error, cpu_s, wall_s

STATUSES = frozenset({"ok", "error", "memory", "output_too_large", "not_literal", "syntax", "forbidden"})
CALL, RESULT, OK, MEMORY = b'["call"]', b'["result",', b'["result","ok",', b'["result","memory",'
LENGTH = struct.Struct("<I")
MOST_BYTES = 1 << 26  # of one child's frames
FORGED = "the program wrote on the result pipe"


class Segment(NamedTuple):
    """What one child gave. frames: as it wrote them, of `results` results; after these `ended` times `end`. age_s: of the child."""

    frames: bytes
    results: int
    age_s: float
    end: Result | None
    ended: int


class Frames:
    """Counts the frames of a child that was given `inputs` calls, each to be made `runs` times; outputs of at most `longest` characters."""

    def __init__(self, inputs: int, runs: int, longest: int):
        self.inputs, self.runs = inputs, runs
        self.largest = 12 * longest + 8192  # JSON writes a character in at most 12 bytes
        self.results = 0
        self.calling = False
        self.out_of_memory = False  # the last result says so: the child ends there, and the other inputs get another
        self.honest = True  # as far as can be told
        self._received = bytearray()
        self._counted = 0  # bytes
        self._half = False  # one of two runs

    @property
    def complete(self) -> bool:
        """Whether nothing more is awaited."""
        return not self.honest or self.results >= self.inputs

    def add(self, data: bytes) -> bool:
        """Takes what came. Whether a call came to its end with it."""
        received = self._received
        received += data
        before = self.results, self._half
        while len(received) - self._counted >= 4 and not self.complete:
            (length,) = LENGTH.unpack_from(received, self._counted)
            start = self._counted + 4
            if length > self.largest or start + length > MOST_BYTES:
                self.honest = False
            if len(received) - start < length:
                break
            self._counted = start + length
            if received.startswith(RESULT, start):
                self._half = _is_half(received, start, self.runs, self._half)
                self.results += not self._half
                self.out_of_memory = received.startswith(MEMORY, start)
            elif received.startswith(CALL, start):
                self.calling = True
            else:  # the program's top level failed: so it would for every other input
                self.results = self.inputs
        return before != (self.results, self._half)

    def taken(self) -> bytes:
        """The frames that were counted."""
        return bytes(memoryview(self._received)[: self._counted])


def _is_half(frames: bytes | bytearray, start: int, runs: int, half: bool) -> bool:
    """Whether a result is the first of two of its input: after a first run that was not ok there is no second."""
    return runs == 2 and not half and frames.startswith(OK, start)


def read_segments(segments: list[Segment], runs: int, longest: int) -> list[Result]:
    """The results of all inputs, in order."""
    results: list[Result] = []
    for segment in segments:
        read = _read(segment, runs, longest)
        results += read[: segment.results]
        results += [("crashed", None, FORGED, 0.0, 0.0)] * (segment.results - len(read))
        if segment.end is not None:
            results += [segment.end] * segment.ended
    return results


def _read(segment: Segment, runs: int, longest: int) -> list[Result]:
    results: list[Result] = []
    place, calling = 0, False
    first: Result | None = None
    while place < len(segment.frames):
        (length,) = LENGTH.unpack_from(segment.frames, place)
        start, place = place + 4, place + 4 + length
        if segment.frames.startswith(CALL, start) and not calling:
            calling = True
            continue
        result = _checked(segment.frames[start:place], "result" if calling else "import", longest, segment.age_s)
        if not segment.frames.startswith(RESULT, start):
            results += [result] * segment.results
        elif _is_half(segment.frames, start, runs, first is not None):
            first = result
        else:
            results.append(result if first is None else _agreed(first, result) if first[0] == "ok" else first)
            first = None
    return results


def _checked(body: bytes, expected: str, longest: int, age_s: float) -> Result:
    """The result that a frame states, or a crash."""
    forged = "crashed", None, FORGED, 0.0, 0.0
    try:
        frame: Any = json.loads(body)
    except (ValueError, RecursionError):
        return forged
    if not (isinstance(frame, list) and len(frame) == 6):
        return forged
    kind, status, value, error, cpu_s, wall_s = frame
    if kind != expected or not isinstance(status, str) or status not in STATUSES:
        return forged
    if not all(isinstance(seconds, float) and 0 <= seconds < math.inf for seconds in (cpu_s, wall_s)):
        return forged
    # A program that claims to have run for longer than there was time would make the sums of others infinite.
    cpu_s, wall_s = (min(seconds, age_s) for seconds in (cpu_s, wall_s))
    if status == "ok":
        if kind == "import" or not isinstance(value, str) or len(value) > longest or error is not None:
            return forged
        written = _repr_of(value)
        if written is None or len(written) > longest:
            return "not_literal", None, "the output's text is not that of a literal", cpu_s, wall_s
        return status, written, None, cpu_s, wall_s
    if value is not None or not isinstance(error, str) or len(error) > 1000:
        return forged
    # Half a character: no log and no answer of a server can hold it.
    return status, None, error.encode("utf-8", "backslashreplace").decode(), cpu_s, wall_s


def _repr_of(text: str) -> str | None:
    """The canonical text of the literal that a text holds, None when it holds none: a child that lies can only lie a value, and brings no comment, no
    further line and no number that the trainer could not write."""
    try:
        written = canonical_text(literal_of(text))
        if written != text:
            literal_of(written)  # of an infinity written as a number it is no literal
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return written


def _agreed(one: Result, two: Result) -> Result:
    if two[0] == "ok":
        if (value := agreed_text(one[1], two[1])) is None:
            return "nondeterministic", None, "two runs in one process gave different outputs", one[3] + two[3], one[4] + two[4]
        return "ok", value, None, one[3] + two[3], one[4] + two[4]
    if two[0] in ("timeout", "memory", "crashed"):
        return (*two[:3], one[3] + two[3], one[4] + two[4])
    return "nondeterministic", None, f"a first run was ok, a second was {two[0]}", one[3] + two[3], one[4] + two[4]
