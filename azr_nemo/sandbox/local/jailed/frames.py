"""What one child wrote on its result pipe: counted while it lives, read once it is gone.

A frame was written by a process that ran a stranger's program, so everything in it is checked; what does not fit is a crash of that program. While
a child lives, every page that its parent writes to is copied, which is most of what a fork costs: so frames are only counted by then, by their
length and first bytes.
"""

import ast
import json
import math
import struct
from typing import Any

Result = tuple[str, str | None, str | None, float, float]  # status, value, error, cpu_s, wall_s

STATUSES = frozenset({"ok", "error", "memory", "output_too_large", "not_literal", "syntax", "forbidden"})
CALL, OK, RESULT = b'["call"]', b'["result","ok",', b'["result",'
MOST_UNREAD = 1 << 20  # bytes; more are read while the child lives
LENGTH = struct.Struct("<I")


class Frames:
    """The frames of a child that was given `inputs` calls, each to be made `runs` times; outputs of at most `longest` characters."""

    def __init__(self, inputs: int, runs: int, longest: int):
        self.inputs, self.runs, self.longest = inputs, runs, longest
        self.largest = 12 * longest + 8192  # JSON writes a character in at most 12 bytes
        self.results: list[Result] = []  # of frames that were read
        self.calling = False
        self.out_of_memory = False  # the last result says so: the child ends there, and the other inputs get another
        self.honest = True  # as far as frames were counted or read
        self._received = bytearray()
        self._counted = 0  # bytes
        self._finished = 0  # inputs, as the first bytes of frames tell
        self._half = False  # one of two runs was counted
        self._earlier: Result | None = None  # one of two runs was read

    @property
    def complete(self) -> bool:
        """Whether nothing more is awaited, as far as frames were counted."""
        return not self.honest or max(self._finished, len(self.results)) >= self.inputs

    def add(self, data: bytes, age_s: float) -> bool:
        """Takes what came. Whether a call came to its end with it. age_s: of the child."""
        received = self._received
        received += data
        ended = False
        while len(received) - self._counted >= 4 and not self.complete:
            (length,) = LENGTH.unpack_from(received, self._counted)
            start = self._counted + 4
            if length > self.largest:
                self.honest = False
            if len(received) - start < length:
                break
            self._counted = start + length
            if received.startswith(RESULT, start):
                ended = True
                self._half = self.runs == 2 and not self._half and received.startswith(OK, start)
                self._finished += not self._half
            elif not received.startswith(CALL, start):  # the program's top level failed
                self._finished = self.inputs
        if len(received) > MOST_UNREAD:
            self.read(age_s)
        return ended

    def read(self, age_s: float) -> None:
        """Reads the frames that were counted into `results`."""
        place = 0
        while place < self._counted and len(self.results) < self.inputs:
            (length,) = LENGTH.unpack_from(self._received, place)
            try:
                frame = json.loads(bytes(self._received[place + 4 : place + 4 + length]))
            except (ValueError, RecursionError):
                frame = None
            if not self._accept(frame, age_s):
                self.honest = False
                break
            place += 4 + length
        del self._received[: self._counted]
        self._counted = 0

    def _accept(self, frame: Any, age_s: float) -> bool:
        if frame == ["call"] and not self.calling:
            self.calling = True
            return True
        if not (isinstance(frame, list) and len(frame) == 6):
            return False
        kind, status, value, error, cpu_s, wall_s = frame
        if kind != ("result" if self.calling else "import") or not isinstance(status, str) or status not in STATUSES:
            return False
        if not all(isinstance(seconds, float) and 0 <= seconds < math.inf for seconds in (cpu_s, wall_s)):
            return False
        # A program that claims to have run for longer than there was time would make the sums of others infinite.
        cpu_s, wall_s = (min(seconds, age_s) for seconds in (cpu_s, wall_s))
        if status == "ok":
            if kind == "import" or not isinstance(value, str) or len(value) > self.longest or error is not None:
                return False
            value = _repr_of(value)
            if value is None or len(value) > self.longest:
                status, value, error = "not_literal", None, "the output's text is not that of a literal"
        elif value is not None or not isinstance(error, str) or len(error) > 1000:
            return False
        else:
            error = error.encode("utf-8", "backslashreplace").decode()  # half a character: no log and no answer of a server can hold it
        self._keep((status, value, error, cpu_s, wall_s))
        return True

    def _keep(self, result: Result) -> None:
        self.out_of_memory = result[0] == "memory"
        if not self.calling:  # so it would for every other input
            self.results += [result] * self.inputs
        elif result[0] == "ok" and self.runs == 2 and self._earlier is None:
            self._earlier = result
        else:
            if self._earlier is not None:
                result = _agreed(self._earlier, result)
                self._earlier = None
            self.results.append(result)


def _repr_of(text: str) -> str | None:
    """The repr of the literal that a text holds, None when it holds none: a child that lies can only lie a value, and brings no comment, no
    further line and no number that the trainer could not write."""
    try:
        written = repr(ast.literal_eval(text))
        if written != text:  # of a set it may be; of an infinity written as a number it is no literal
            ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return written


def _agreed(one: Result, two: Result) -> Result:
    if two[0] == "ok" and one[1] != two[1]:
        return "nondeterministic", None, "two runs in one process gave different outputs", one[3] + two[3], one[4] + two[4]
    if two[0] in ("ok", "timeout", "memory", "crashed"):
        return (*two[:3], one[3] + two[3], one[4] + two[4])
    return "nondeterministic", None, f"a first run was ok, a second was {two[0]}", one[3] + two[3], one[4] + two[4]
