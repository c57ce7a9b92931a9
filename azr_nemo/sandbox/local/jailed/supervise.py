"""Watches the forks of one request: counts their frames, ends them when a limit is over, and says how each came to its end."""

import math
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

from .child import BROKEN, OUT_OF_MEMORY
from .frames import FORGED, Frames, Result, Segment

GRACE_S = 0.2  # a process whose pipe closed has this long to be gone


class Control(Protocol):
    """The connection to the trainer, as far as it matters while a program runs."""

    fd: int

    def receive(self) -> None:
        """Reads what is there; ends the worker when the trainer is gone."""
        ...


def run_request(request: dict[str, Any], spawn: Callable[[dict[str, Any], int], tuple[int, int]], control: Control) -> list[Segment]:
    """What came of all inputs, in order. spawn(request, first) forks a child for the inputs from `first` on and gives its pid and result pipe."""
    segments: list[Segment] = []
    done = 0
    while done < len(request["inputs"]):
        segment = Fork(request, done, *spawn(request, done)).watch(control)
        segments.append(segment)
        done += segment.results + segment.ended
    return segments


class Fork:
    """One child and the inputs it was given: those from `first` on. `watch` gives at least one result, so a request comes to its end."""

    def __init__(self, request: dict[str, Any], first: int, pid: int, pipe: int):
        self.pid, self.pipe = pid, pipe
        self.wall_s, self.cpu_s = float(request["wall_s"]), float(request["cpu_s"])
        self.frames = Frames(len(request["inputs"]) - first, int(request["runs"]), int(request["output_chars"]))
        self.born = time.monotonic()
        self.started = self.born, 0.0  # wall and CPU clocks when the current call began
        self.spent = 0.0, 0.0  # CPU and wall seconds of the current call, when the child was given up

    def watch(self, control: Control) -> Segment:
        try:
            why = self._follow(control)
            self.spent = max(0.0, self._cpu() - self.started[1]), time.monotonic() - self.started[0]
            status = self._reap() if why == "ended" else None
        finally:
            os.close(self.pipe)
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        frames, end = self.frames, None
        if frames.results < frames.inputs:
            if not frames.honest:
                end = self._ending("crashed", FORGED)
            elif why == "late":
                end = self._ending("timeout", f"longer than {self.wall_s:g} s, or {self.cpu_s:g} s of CPU")
            elif not (frames.out_of_memory and frames.results):  # else as agreed: the other inputs get a fresh process
                end = self._death(status)
        # A program whose top level brings its process down would do so for every other input.
        ended = 0 if end is None else 1 if frames.calling else frames.inputs
        return Segment(frames.taken(), frames.results, time.monotonic() - self.born, end, ended)

    def _follow(self, control: Control) -> str:
        """Waits until the child said everything, closed its pipe (`ended`) or ran out of time (`late`)."""
        poll = select.poll()
        poll.register(control.fd, select.POLLIN)
        poll.register(self.pipe, select.POLLIN)
        while not self.frames.complete:
            ready = [fd for fd, _ in poll.poll(self._patience_ms())]
            if control.fd in ready:
                control.receive()
            # Looked at before reading, so that a result that came in time counts however late this process got to run; and in every
            # round, so that a program that trickles bytes on the pipe gains no time.
            over, ended = self._over(), False
            if self.pipe in ready:
                data = os.read(self.pipe, 1 << 16)
                if not data:
                    return "ended"
                ended = self.frames.add(data)
                if ended:
                    self.started = time.monotonic(), self._cpu()
            if over and not ended:
                return "late"
        return "said"

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

    def _death(self, status: int | None) -> Result:
        """The child closed its pipe before all results were there. status: as `waitpid` gives it, None when it was still running."""
        if status is None:
            return self._ending("crashed", "the program closed the result pipe")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU:
                return self._ending("timeout", "the CPU time is used up")
            if number == signal.SIGKILL:
                return self._ending("memory", "killed by the kernel")
            return self._ending("crashed", f"killed by {_name_of(number)}")
        if os.WEXITSTATUS(status) == OUT_OF_MEMORY:
            return self._ending("memory", "MemoryError")
        if os.WEXITSTATUS(status) == BROKEN:
            return self._ending("crashed", "the program broke the code that reports its result")
        return self._ending("crashed", f"the process ended with status {os.WEXITSTATUS(status)} and no result")

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

    def _ending(self, status: str, error: str) -> Result:
        """The result of the input that the child was busy with."""
        return status, None, error, *self.spent


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"
