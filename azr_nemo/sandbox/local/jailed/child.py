"""What one fork does: closes everything, locks itself in, executes the program, calls `f`, and writes results on its one pipe.

Whatever a program does to this process, it can spoil only its own results: nothing else is reachable from here, and the worker trusts no frame.
"""

import ctypes
import errno
import json
import os
import random  # noqa: F401 - seeds itself anew in every fork: a program that draws is not deterministic
import resource
import signal
import struct
import sys
import time
import types

# The program may replace names in `builtins`; bound here, these stay what they were.
from builtins import BaseException, Exception, MemoryError, PermissionError, compile, eval, exec, len, range, repr, str, type  # noqa: UP029
from collections.abc import Callable
from functools import partial
from typing import Any

from .call import PROGRAM, compile_call
from .literal import Refused, class_name, literal_text

RESULT_FD = 3
OUT_OF_MEMORY = 98  # exit status: not even a result could be written
BROKEN = 97  # exit status: the jail could not be closed, or the program broke the code that reports for it
ERROR_CHARS = 200
# As they were when the worker began: they can only be lowered.
HARD_LIMITS = {
    which: resource.getrlimit(which)[1]
    for which in (
        resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC,
    )
}  # fmt: skip
SECCOMP = {"x86_64": 317, "aarch64": 277}  # the system call's number
REFUSED_BY_KERNEL = (errno.EPERM, errno.EACCES)

_quote = json.encoder.encode_basestring_ascii  # written in C: it looks nothing up that a program could have replaced
_join = str.join
_write, _exit, _pack = os.write, os._exit, struct.pack
_wall, _cpu = time.perf_counter, time.process_time
_modules = sys.modules
_libc = ctypes.CDLL(None, use_errno=True)


class SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class Filter:
    """A compiled system-call filter, kept in the form that prctl takes. `install` cannot be undone."""

    def __init__(self, bpf: bytes):
        self._bytes = ctypes.create_string_buffer(bpf, len(bpf))
        self._program = SockFprog(len(bpf) // 8, ctypes.cast(self._bytes, ctypes.c_void_p))

    def install(self, threads: bool = False) -> None:
        """threads: for every thread of this process; else for the one that asks, which is alone."""
        if threads:  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC; above zero is a thread that could not follow
            refused = _libc.syscall(SECCOMP[os.uname().machine], 1, 1, ctypes.byref(self._program))
        else:
            refused = _libc.prctl(22, 2, ctypes.byref(self._program), 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        if refused != 0:
            raise OSError(ctypes.get_errno(), "the system-call filter was not accepted")


def enter(pipes: dict[int, int], parent: int, memory_bytes: int, seconds: float, seccomp: Filter | None, threads: bool = False) -> None:
    """Turns this fresh fork into a locked cell that keeps the standard streams and `pipes`: the number each gets, and its number so far.

    memory_bytes: address space, preloaded modules included; seconds: CPU time after which the kernel ends it should the worker not; threads: whether
    there are threads that must be locked in as well.
    """
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: dies with the worker
    if os.getppid() != parent:
        _exit(BROKEN)
    for number, pipe in pipes.items():  # a pipe of the worker's lies above the numbers that are given here
        os.dup2(pipe, number, inheritable=False)
    os.closerange(max(2, *pipes) + 1, 256)  # the control socket above all
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: int(seconds) + 2,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 0,
    }
    for which, limit in limits.items():
        hard = HARD_LIMITS[which]
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(which, (limit, limit))
    if seccomp is not None:
        seccomp.install(threads)


def rehearse() -> None:
    """Runs what every fork runs, in the worker and on a program of our own. CPython then has its caches filled and its bytecode specialised before
    the memory is shared, so that each fork writes to a quarter fewer pages: the copies are most of what a fork costs."""
    for _ in range(20):
        code = _compiled("def f(x, y=()):\n    z = []\n    for i in range(x):\n        z.append(i * 2)\n    return z")
        _guard(partial(_called, code, "3, y=[-1, 'a']", None, 100))
        _encoded(["result", "ok", "[1]", None, *_since((0.0, 0.0))])
        _libc.prctl(39, 0, 0, 0, 0)  # PR_GET_NO_NEW_PRIVS
    del _modules[PROGRAM]


def serve(program: str, inputs: list[str], runs: int, output_chars: int) -> None:
    """Sends one frame ["call"] once the program's top level ran, then ["result", status, value, error, cpu_s, wall_s] per call and run, in order.
    A program that does not get so far sends ["import", ...] instead. Ends after an exhausted memory: the rest needs a fresh process."""
    start = _wall(), _cpu()
    loaded: dict[str, Any] | None = None
    failure, code = _guard(lambda: _compiled(program))
    if failure is None:
        failure, loaded = _guard(lambda: _executed(code))
    if failure is not None:
        return _send(["import", *failure, *_since(start)])
    _send(["call"])
    for text in inputs:
        for _ in range(runs):
            # The program is executed afresh for every call: what one call leaves in its globals, the next does not see.
            namespace, loaded = loaded, None
            failure, value = _guard(partial(_called, code, text, namespace, output_chars))
            _send(["result", *(failure or ("ok", value, None)), *_since(start)])
            start = _wall(), _cpu()
            if failure is not None:
                if failure[0] == "memory":
                    return None
                break  # a second run is only for comparing values
    return None


def _compiled(program: str) -> types.CodeType:
    try:
        return compile(program, "<program>", "exec", dont_inherit=True)
    except Exception as error:  # SyntaxError, ValueError for null bytes, RecursionError and MemoryError for nesting, UnicodeError
        raise Refused("syntax", _message(error)) from None


def _executed(code: types.CodeType) -> dict[str, Any]:
    module = types.ModuleType(PROGRAM)
    _modules[PROGRAM] = module  # dataclasses and typing look a class's module up
    exec(code, module.__dict__)
    return module.__dict__


def _called(code: types.CodeType, text: str, namespace: dict[str, Any] | None, output_chars: int) -> str:
    namespace = namespace if namespace is not None else _executed(code)
    return literal_text(eval(compile_call(text, namespace), namespace), output_chars)


def _guard(action: Callable[[], Any]) -> tuple[tuple[str, None, str] | None, Any]:
    """(None, what the action returned), or ((status, None, error), None)."""
    try:
        return None, action()
    except Refused as refused:
        return (refused.status, None, refused.reason[:ERROR_CHARS]), None
    except MemoryError:
        return ("memory", None, "MemoryError"), None
    except PermissionError as error:
        # The jail's refusals carry the kernel's number; a PermissionError that the program made up does not.
        return ("forbidden" if error.errno in REFUSED_BY_KERNEL else "error", None, _message(error)), None
    except BaseException as error:
        return ("error", None, _message(error)), None


def _message(error: BaseException) -> str:
    try:
        text = str.__getitem__(str(error), slice(ERROR_CHARS))
    except BaseException:  # a `__str__` of the program's own
        text = ""
    return f"{class_name(type(error))}: {text}"


def _since(start: tuple[float, float]) -> tuple[float, float]:
    return _cpu() - start[1], _wall() - start[0]


def _encoded(frame: list[Any]) -> bytes:
    """A list of texts, floats and None as JSON."""
    return f"[{_join(',', ['null' if part is None else _quote(part) if type(part) is str else repr(part) for part in frame])}]".encode()


def _send(frame: list[Any]) -> None:
    try:
        body = _encoded(frame)
        data = _pack("<I", len(body)) + body
        while data:
            data = data[_write(RESULT_FD, data) :]
    except MemoryError:
        _exit(OUT_OF_MEMORY)
