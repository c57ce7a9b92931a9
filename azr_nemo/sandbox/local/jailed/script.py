"""Runs a whole script in a cell, with its standard streams on pipes: what a server of scripts needs beside calls of `f`.

The output is what the script says of itself and nothing more; nobody takes it for a result that was proven.
"""

import atexit
import builtins
import io
import linecache
import os
import select
import selectors
import signal
import sys
import time
import traceback
import types
from typing import Any, Protocol

from . import child, threads

NAME = "main.py"
STREAMS = {"/dev/stdin": 0, "/dev/fd/0": 0, "/proc/self/fd/0": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_builtin_open = open
Result = list[Any]  # status (finished, timeout, flooded), return code or None, stdout, stderr, cpu_s, wall_s


class Control(Protocol):
    """The connection to the trainer, as far as it matters here."""

    fd: int
    received: bytearray

    def receive(self) -> None: ...


def run_script(request: dict[str, Any], control: Control, base: int, seccomp: child.Filter | None) -> Result:
    """Runs request["script"] with request["stdin"] until it ends, its time is over, or a stream holds more than request["stream_bytes"].

    A return code below zero is the signal that ended it, as in `subprocess`; there is none after a timeout.
    """
    return _Script(request, base, seccomp, control).watch(control)


class _Script:
    """One script's process and its three pipes."""

    def __init__(self, request: dict[str, Any], base: int, seccomp: child.Filter | None, control: Control):
        self.wall_s, self.cpu_s, self.most = float(request["wall_s"]), float(request["cpu_s"]), int(request["stream_bytes"])
        self.to_write = memoryview(request["stdin"].encode("utf-8", "surrogatepass"))
        self.started = time.monotonic()
        pipes = [os.pipe() for _ in range(3)]
        (its_in, self.stdin), (self.stdout, its_out), (self.stderr, its_err) = pipes
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                control.received.clear()
                memory = request["memory_mb"] << 20
                script = request["script"]
                request.clear()
                parked = threads.Threads(memory) if threads.ASKED_FOR.search(script) else None
                child.enter({0: its_in, 1: its_out, 2: its_err}, parent, base + memory, self.cpu_s, seccomp, threads=parked is not None)
                if parked is not None:
                    parked.offer()
                os._exit(_run(script))
            finally:
                child._exit(child.BROKEN)
        for fd in (its_in, its_out, its_err):
            os.close(fd)
        os.set_blocking(self.stdin, False)
        self.said = {self.stdout: bytearray(), self.stderr: bytearray()}

    def watch(self, control: Control) -> Result:
        poll = select.poll()
        poll.register(control.fd, select.POLLIN)
        poll.register(self.stdin, select.POLLOUT)
        silent = {self.stdout, self.stderr}
        for fd in silent:
            poll.register(fd, select.POLLIN)
        status, ended = "finished", None
        try:
            # A grandchild cannot exist, so both streams end when the script does, or when it closed them and goes on.
            while silent or (ended := self._ended()) is None:
                left = self.started + self.wall_s - time.monotonic()
                if left <= 0:
                    status = "timeout"
                    break
                for fd, _ in poll.poll(min(left * 1000 + 1, 1000 if silent else 5)):
                    if fd == control.fd:
                        control.receive()
                    elif fd == self.stdin:
                        self._feed(poll)
                    elif not self._hear(fd):
                        poll.unregister(fd)
                        silent.discard(fd)
                if max(map(len, self.said.values())) > self.most:
                    status = "flooded"
                    break
        finally:
            if ended is None:
                os.kill(self.pid, signal.SIGKILL)
                _, wait_status, usage = os.wait4(self.pid, 0)
                ended = wait_status, usage.ru_utime + usage.ru_stime
            for fd in (self.stdin, self.stdout, self.stderr):
                if fd >= 0:
                    os.close(fd)
        code = os.waitstatus_to_exitcode(ended[0])
        if status == "finished" and code == -signal.SIGXCPU:
            status = "timeout"
        streams = [bytes(text[: self.most]).decode("utf-8", "replace") for text in self.said.values()]
        return [status, None if status == "timeout" else code, *streams, ended[1], time.monotonic() - self.started]

    def _ended(self) -> tuple[int, float] | None:
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        return (status, usage.ru_utime + usage.ru_stime) if pid else None

    def _feed(self, poll: "select.poll") -> None:
        """Writes what the pipe takes of the script's input; closes it at the end, or when the script does not want it."""
        try:
            if self.to_write:
                self.to_write = self.to_write[os.write(self.stdin, self.to_write) :]
        except BlockingIOError:
            return
        except OSError:
            self.to_write = self.to_write[:0]
        if not self.to_write:
            poll.unregister(self.stdin)
            os.close(self.stdin)
            self.stdin = -1

    def _hear(self, fd: int) -> bool:
        data = os.read(fd, 1 << 16)
        self.said[fd] += data
        return bool(data)


def _run(script: str) -> int:
    """Executes a script as `python main.py` would; the exit status."""
    linecache.cache[NAME] = (len(script), None, script.splitlines(keepends=True), NAME)  # a traceback shows its lines
    main = types.ModuleType("__main__")
    main.__file__ = NAME
    sys.modules["__main__"] = main
    sys.argv = [NAME]
    if any(name in script for name in STREAMS):
        builtins.open = io.open = _open
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[assignment, misc] # a cell may not have the others
    try:
        exec(compile(script, NAME, "exec", dont_inherit=True), main.__dict__)
        status = 0
    except SystemExit as leave:
        status = _exit_status(leave.code)
    except BaseException as error:
        status = 1
        here = error.__traceback__
        traceback.print_exception(error.with_traceback(here.tb_next if here else None))
    threads.wait_for_all()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the script closed it
            continue
    return status


def _open(file: Any, *arguments: Any, **named: Any) -> Any:
    """`open`. There is no /dev in a jail; for a script it is its standard streams alone."""
    stream = STREAMS.get(file) if isinstance(file, str) else None
    return _builtin_open(file if stream is None else os.dup(stream), *arguments, **named)


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1
