"""One worker process, seen from the trainer: started with a clean environment, asked one request at a time, ended without trace."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Script, ScriptResult, ScriptStatus, Status
from azr_nemo.sandbox.local.jailed.frames import Segment, read_segments

HERE = Path(__file__).parent
START_S = 60.0  # a worker is up in a fraction of a second, one that imports sympy in two; a machine that is busy or swaps gets this long
MARGIN_S = 10.0  # beyond the sum of a request's own limits, before the worker is given up
TEXT_AND_TIME = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "TZ": "UTC"}  # UTF-8 whatever a program makes of its locale
# The worker reads the results of every program before it forks for the next: glibc overwrites what is freed, so that none finds another's.
# One arena: others are 64 MiB of address space for each thread.
MEMORY = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.perturb=165:glibc.malloc.arena_max=1"}
# A job that is asked to stop has all its processes signalled, by a terminal or by Slurm; the worker serves until the trainer lets it go.
NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FAREWELL_S = 2.0  # for a worker to end once its connection is closed
LARGEST_FRAME = 1 << 28


class Start(Protocol):
    """How a worker is started: a `jail.Plan`."""

    @property
    def command(self) -> tuple[str, ...]:
        """What stands before the interpreter."""
        ...

    @property
    def first_frame(self) -> dict[str, Any]:
        """What it is sent first."""
        ...


class WorkerLost(ExecutorUnavailable):
    """The worker process ended or fell silent. Says nothing of the program it was running."""


class Worker:
    """A running worker. Not thread-safe, but for `hang_up`. hash_seed: PYTHONHASHSEED of the worker and of every program in it.

    Must be started by a thread that outlives it: the kernel ends a child with the thread that made it. Raises ExecutorUnavailable when it does not
    come up.
    """

    def __init__(self, plan: Start, hash_seed: int):
        self.served = 0
        mine, its = socket.socketpair()
        self._socket = mine
        script = f"import sys; sys.path.insert(0, {str(HERE)!r}); from jailed.worker import main; del sys.path[0]; main({its.fileno()})"
        environment = {"PYTHONHASHSEED": str(hash_seed), "OPENBLAS_NUM_THREADS": "1", **TEXT_AND_TIME, **MEMORY}
        environment["PYTHONTZPATH"] = plan.first_frame.get("time_zones", "")
        if "LD_LIBRARY_PATH" in os.environ:  # the interpreter itself may need it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        # A blocked signal stays blocked in whatever is started from here: the jail's own launcher too, which has no code of ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_WORKERS)
        try:
            self._process = subprocess.Popen(
                [*plan.command, os.path.realpath(sys.executable), "-s", "-P", "-S", "-c", script],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                pass_fds=[its.fileno()], env=environment, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            mine.close()
            raise ExecutorUnavailable(f"the executor's worker could not be started: {error}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            its.close()
        self.pid = self._process.pid
        try:
            self._send(plan.first_frame, time.monotonic() + START_S)
            answer, _ = self._receive(time.monotonic() + START_S)
        except WorkerLost:
            self.close()
            raise ExecutorUnavailable(f"the executor's worker ended while starting: {self._last_words or 'without a word'}") from None
        if "error" in answer:
            self.close()
            raise ExecutorUnavailable(f"the executor's worker could not lock itself in: {answer['error']}")
        assert self._process.stderr is not None
        self._process.stderr.close()

    def run(self, program: str, inputs: list[str], limits: Limits, runs: int) -> list[Outcome]:
        """One outcome per input. runs: 2 to call twice and compare. Returns within the sum of the limits and a margin, or raises WorkerLost."""
        frame = {"program": program, "inputs": inputs, "runs": runs, "output_chars": limits.output_chars}
        answer, tail = self._ask(frame, limits, runs * len(inputs) * (limits.wall_s + 0.5))
        try:
            results = read_segments(_segments(answer["segments"], tail), runs, limits.output_chars)
            outcomes = [Outcome(Status(status), value, error, cpu_s, wall_s) for status, value, error, cpu_s, wall_s in results]
        except (KeyError, TypeError, ValueError, struct.error):
            raise WorkerLost("the executor's worker answered nonsense") from None
        if len(outcomes) != len(inputs):
            raise WorkerLost("the executor's worker answered another request")
        return outcomes

    def run_script(self, script: Script) -> ScriptResult:
        """How the script ended. Returns within its limits and a margin, or raises WorkerLost."""
        frame = {"script": script.source, "stdin": script.stdin, "stream_bytes": script.stream_bytes}
        answer, _ = self._ask(frame, script.limits, script.limits.wall_s)
        try:
            status, return_code, stdout, stderr, cpu_s, wall_s = answer["result"]
            return ScriptResult(ScriptStatus(status), return_code, stdout, stderr, cpu_s, wall_s)
        except (KeyError, TypeError, ValueError):
            raise WorkerLost("the executor's worker answered nonsense") from None

    def _ask(self, frame: dict[str, Any], limits: Limits, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The worker's answer to one frame, due within `seconds` and a margin."""
        self.served += 1
        until = time.monotonic() + MARGIN_S + seconds
        bounds = {"wall_s": limits.wall_s, "cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb}
        self._send({"id": self.served, **frame, **bounds}, until)
        answer, tail = self._receive(until)
        if not isinstance(answer, dict) or answer.get("id") != self.served:
            raise WorkerLost("the executor's worker answered another request")
        return answer, tail

    def _send(self, frame: dict[str, Any], until: float) -> None:
        body = json.dumps(frame).encode()
        try:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            self._socket.sendall(struct.pack("<I", len(body)) + body)
        except OSError as error:
            raise WorkerLost(f"the executor's worker is gone: {error}") from None

    def _receive(self, until: float) -> tuple[dict[str, Any], bytes]:
        data = bytearray()
        self._read_to(data, 8, until)
        length, tail = struct.unpack_from("<II", data)
        if length + tail > LARGEST_FRAME:
            raise WorkerLost("the executor's worker answered nonsense")
        self._read_to(data, 8 + length + tail, until)
        try:
            return json.loads(bytes(data[8 : 8 + length])), bytes(data[8 + length :])
        except ValueError:
            raise WorkerLost("the executor's worker answered nonsense") from None

    def _read_to(self, data: bytearray, length: int, until: float) -> None:
        """Reads until `data` has `length` bytes; there is one answer at a time, so nothing of the next can be among them."""
        while len(data) < length:
            try:
                self._socket.settimeout(max(0.001, until - time.monotonic()))
                part = self._socket.recv(1 << 20)
            except TimeoutError:
                raise WorkerLost("the executor's worker did not answer in time") from None
            except OSError as error:
                raise WorkerLost(f"the executor's worker is gone: {error}") from None
            if not part:
                raise WorkerLost("the executor's worker ended")
            data += part
            if len(data) > LARGEST_FRAME:
                raise WorkerLost("the executor's worker answered nonsense")

    def hang_up(self) -> None:
        """Ends the conversation: the process ends, and whoever waits for its answer gets WorkerLost. May be called from any thread."""
        with contextlib.suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the process and leaves nothing of it behind."""
        self.hang_up()
        try:
            # It ends by itself, and so do the processes between us: killed, they would be left to an init that may not be there.
            self._process.wait(timeout=FAREWELL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=START_S)
        self._socket.close()
        self._last_words = ""
        if self._process.stderr is not None and not self._process.stderr.closed:
            os.set_blocking(self._process.stderr.fileno(), False)
            said = (self._process.stderr.read() or b"").decode(errors="replace").strip().splitlines()
            self._last_words = said[-1][:300] if said else ""
            self._process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _segments(told: list[Any], tail: bytes) -> list[Segment]:
    """The worker's segments, each with its frames out of the tail."""
    segments, place = [], 0
    for length, results, age_s, end, ended in told:
        segments.append(Segment(tail[place : place + length], results, age_s, tuple(end) if end else None, ended))
        place += length
    return segments
