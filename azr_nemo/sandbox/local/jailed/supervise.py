"""Watches the forks of one request: reads their frames, ends them when a limit is over, and makes one outcome per input of what came.

A frame was written by a process that ran a stranger's program, so everything in it is checked; what does not fit is a crash of that program.
"""

import ast
import json
import math
import os
import select
import signal
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

from .child import BROKEN, OUT_OF_MEMORY

Result = tuple[str, str | None, str | None, float, float]  # status, value, error, cpu_s, wall_s

STATUSES = frozenset({"ok", "error", "memory", "output_too_large", "not_literal", "syntax", "forbidden"})
GRACE_S = 0.2  # a process whose pipe closed has this long to be gone


class Control(Protocol):
    """The connection to the trainer, as far as it matters while a program runs."""

    fd: int

    def receive(self) -> None:
        """Reads what is there; ends the worker when the trainer is gone."""
        ...


def run_request(request: dict[str, Any], spawn: Callable[[dict[str, Any], int], tuple[int, int]], control: Control) -> list[Result]:
    """One result per input, in order. spawn(request, first) forks a child for the inputs from `first` on and gives its pid and result pipe."""
    results: list[Result] = []
    while len(results) < len(request["inputs"]):
        results += Fork(request, len(results), *spawn(request, len(results))).watch(control)
    return results


class Fork:
    """One child and the inputs it was given: those from `first` on. `watch` yields at least one result, so a request comes to its end."""

    def __init__(self, request: dict[str, Any], first: int, pid: int, pipe: int):
        self.pid, self.pipe = pid, pipe
        self.wall_s, self.cpu_s = float(request["wall_s"]), float(request["cpu_s"])
        self.longest, self.runs, self.expected = int(request["output_chars"]), int(request["runs"]), len(request["inputs"]) - first
        self.largest_frame = 12 * self.longest + 8192  # JSON writes a character in at most 12 bytes
        self.results: list[Result] = []
        self.calling = False
        self.out_of_memory = False
        self.earlier: Result | None = None  # the first of two runs of the current input
        self.received = bytearray()
        self.started = time.monotonic(), 0.0  # wall and CPU clocks when the current call began

    def watch(self, control: Control) -> list[Result]:
        poll = select.poll()
        poll.register(control.fd, select.POLLIN)
        poll.register(self.pipe, select.POLLIN)
        try:
            while len(self.results) < self.expected:
                ready = [fd for fd, _ in poll.poll(self._patience_ms())]
                if control.fd in ready:
                    control.receive()
                # Looked at before reading, so that a result that came in time counts however late this process got to run; and in every
                # round, so that a program that trickles bytes on the pipe gains no time.
                over, call = self._over(), self.started
                if self.pipe in ready:
                    data = os.read(self.pipe, 1 << 16)
                    if not data:
                        self._ended()
                        break
                    self.received += data
                    if not self._take_frames():
                        self._close_with("crashed", "the program wrote on the result pipe")
                        break
                if over and self.started is call:
                    self._close_with("timeout", f"longer than {self.wall_s:g} s, or {self.cpu_s:g} s of CPU")
                    break
        finally:
            os.close(self.pipe)
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        return self.results

    def _patience_ms(self) -> int:
        """Until the wall time of the current call is over, or the CPU time may be."""
        left = self.started[0] + self.wall_s - time.monotonic()
        if self.cpu_s < self.wall_s:
            left = min(left, self.cpu_s - (self._cpu() - self.started[1]))
        return max(0, math.ceil(left * 1000))

    def _over(self) -> bool:
        return time.monotonic() - self.started[0] >= self.wall_s or self._cpu() - self.started[1] >= self.cpu_s

    def _cpu(self) -> float:
        """CPU seconds of the child: its own clock, named by its pid as the kernel does (CPUCLOCK_SCHED)."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:  # it just ended, or the kernel lacks the clock and RLIMIT_CPU alone holds
            return self.started[1]

    def _take_frames(self) -> bool:
        """Whether all frames so far are such as an honest child writes."""
        while len(self.received) >= 4 and len(self.results) < self.expected:
            (length,) = struct.unpack_from("<I", self.received)
            if length > self.largest_frame:
                return False
            if len(self.received) < 4 + length:
                break
            try:
                frame = json.loads(bytes(self.received[4 : 4 + length]))
            except (ValueError, RecursionError):
                return False
            del self.received[: 4 + length]
            if not self._accept(frame):
                return False
        return True

    def _accept(self, frame: Any) -> bool:
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
        if status == "ok":
            if kind == "import" or not isinstance(value, str) or len(value) > self.longest or error is not None:
                return False
            if not _reads_back(value):
                status, value, error = "not_literal", None, "the output's text is not that of a literal"
        elif value is not None or not isinstance(error, str) or len(error) > 1000:
            return False
        self._count((status, value, error, cpu_s, wall_s))
        return True

    def _count(self, result: Result) -> None:
        self.started = time.monotonic(), self._cpu()
        self.out_of_memory = result[0] == "memory"
        if not self.calling:  # the program's top level failed: so it would for every other input
            self.results += [result] * self.expected
        elif result[0] == "ok" and self.runs == 2 and self.earlier is None:
            self.earlier = result
        else:
            if self.earlier is not None:
                result = _agreed(self.earlier, result)
                self.earlier = None
            self.results.append(result)

    def _ended(self) -> None:
        """The child closed its pipe before all results were there."""
        status = self._reap()
        if self.out_of_memory and self.results:
            return  # as agreed: the other inputs get a fresh process
        if status is None:
            self._close_with("crashed", "the program closed the result pipe")
        elif os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU:
                self._close_with("timeout", "the CPU time is used up")
            elif number == signal.SIGKILL:
                self._close_with("memory", "killed by the kernel")
            else:
                self._close_with("crashed", f"killed by {signal.Signals(number).name}")
        elif os.WEXITSTATUS(status) == OUT_OF_MEMORY:
            self._close_with("memory", "MemoryError")
        elif os.WEXITSTATUS(status) == BROKEN:
            self._close_with("crashed", "the program broke the code that reports its result")
        else:
            self._close_with("crashed", f"the process ended with status {os.WEXITSTATUS(status)} and no result")

    def _reap(self) -> int | None:
        """The wait status, or None when the process still runs a moment after its pipe closed."""
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return status
            time.sleep(0.001)
        return None

    def _close_with(self, status: str, error: str) -> None:
        """The outcome of the input that the child was busy with; of all inputs, when it did not get past the program's top level."""
        result = (status, None, error, max(0.0, self._cpu() - self.started[1]), time.monotonic() - self.started[0])
        self.results += [result] * (1 if self.calling else self.expected)


def _reads_back(text: str) -> bool:
    """Whether the trainer will be able to read this value: a child that lies can only lie a literal."""
    try:
        ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _agreed(one: Result, two: Result) -> Result:
    if two[0] == "ok" and one[1] != two[1]:
        return "nondeterministic", None, "two runs in one process gave different outputs", one[3] + two[3], one[4] + two[4]
    if two[0] in ("ok", "timeout", "memory", "crashed"):
        return (*two[:3], one[3] + two[3], one[4] + two[4])
    return "nondeterministic", None, f"a first run was ok, a second was {two[0]}", one[3] + two[3], one[4] + two[4]
