"""How tests start processes: one thread each, and none outlives its test, nor the session, however that ends; nor does anything that it starts.

A process carries a mark in its environment, which all its descendants inherit, in whatever session or process group they are (torchrun gives
each rank its own). So the whole tree can be found and killed. What a test has left running is killed at its end; when pytest itself is killed,
its guard, a process of its own, kills what carries the session's mark (`process_guard`).
"""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

# What libgomp, torch's OpenMP, reads when it is loaded: one thread, and none that spins while it waits.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
MARK = "AZR_STARTED_BY_TESTS"
PR_SET_PDEATHSIG = 1
PATIENCE_S = 10.0  # for what must end by itself, or has been killed

slow = False  # whether the test that runs is marked so
_numbers = itertools.count(1)
_alone = f"{os.urandom(16).hex()}/"  # of a program that no test started, such as a benchmark: another one's processes are not its own
_running: "dict[int, Endable]" = {}  # what has been started and not ended, by number
_at_end: list[Callable[[], object]] = []


class Endable(Protocol):
    def end(self) -> None:
        """Kills it with all that it started; does nothing when it has ended."""
        ...


def session_mark() -> str:
    """Of everything that this process starts: in a pytest session set by `process_guard`."""
    return os.environ.get(MARK) or _alone


class Process(subprocess.Popen[Any]):
    """A started command in a session of its own, its streams as text. Leaving it as a context kills it and all that it started.

    env: its environment, else that of this process; in either case with one thread, where env does not say otherwise. lasting: it may outlive
    the test that started it.
    """

    def __init__(self, command: list[Any], env: Mapping[str, str] | None = None, lasting: bool = False, **options: Any) -> None:
        self.number = next(_numbers)
        self.mark = f"{session_mark()}{self.number}/"
        variables = {**ONE_THREAD, **(os.environ if env is None else env), MARK: self.mark}
        super().__init__([str(word) for word in command], env=variables, start_new_session=True, **{"text": True, **options})
        if not lasting:
            started(self.number, self)

    def end(self) -> None:
        kill(self.mark)
        if self.poll() is None:
            self.kill()  # of another user namespace, whose environment cannot be read
        self.wait(PATIENCE_S)
        ended(self.number)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.end()
        super().__exit__(kind, value, trace)


def run(
    command: list[Any], timeout: float, said: str | None = None, merged: bool = False, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with captured text, except that the time limit is everybody's whom the command starts, and that it fails when one of
    them outlives the command. said: to its stdin. merged: errors are part of stdout."""
    errors = subprocess.STDOUT if merged else subprocess.PIPE
    stdin = None if said is None else subprocess.PIPE
    with Process(command, stdin=stdin, stdout=subprocess.PIPE, stderr=errors, **options) as process:
        out, err = process.communicate(said, timeout=timeout)
        deadline = time.monotonic() + PATIENCE_S
        while (left := alive(process.mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"{process.args} left behind: {', '.join(map(describe, left))}"
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


class Fork:
    """A fork that whoever made it may have waited for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def end(self) -> None:
        with suppress(ChildProcessError):  # its number may be another process's by now
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def fork() -> int:
    """os.fork, in a child that dies with this process: a fork has the environment with which this process began, not the mark."""
    parent = os.getpid()
    if pid := os.fork():
        started(next(_numbers), Fork(pid))
    else:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return pid


def started(number: int, what: Endable) -> None:
    _running[number] = what


def ended(number: int) -> None:
    _running.pop(number, None)


def next_number() -> int:
    """Greater than those of all that has been started."""
    return next(_numbers)


def end_since(number: int) -> None:
    """Kills what has been started since then and is still running."""
    for later in sorted(key for key in _running if key > number):
        _running.pop(later).end()


def at_session_end(close: Callable[[], object]) -> None:
    """Has something closed that all tests share."""
    _at_end.append(close)


def close_shared() -> None:
    while _at_end:
        _at_end.pop()()


def alive(mark: str) -> list[int]:
    """The processes that carry this mark or one that begins with it, without this one."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):  # it has ended, or is not ours
                if any(variable.startswith(wanted) for variable in Path("/proc", name, "environ").read_bytes().split(b"\0")):
                    found.append(int(name))
    return found


def kill(mark: str) -> None:
    """Kills them, and those that they start meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := alive(mark)) and time.monotonic() < deadline:
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on: those too that were started without an environment."""
    found = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def describe(pid: int) -> str:
    """A process in words: what it runs, and the test that started it."""
    command, variables = "", []
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    test = next((variable.partition("=")[2] for variable in variables if variable.startswith("PYTEST_CURRENT_TEST=")), "no test")
    return f"{pid} {command[:200]!r}, started by {test}"


def guard(session: str, parent: int) -> None:
    """Waits for the end of the process that started it, or to be told of it, and kills what carries the session's mark."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        signal.sigwait({signal.SIGTERM})
    kill(session)


if __name__ == "__main__":
    guard(sys.argv[1], int(sys.argv[2]))
