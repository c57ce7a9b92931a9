"""A cell: a fork of a process that was locked in, in which a stranger's code runs."""

import mmap
import os
import resource
from typing import Any, Protocol

from . import child


class Connection(Protocol):
    """What of the trainer's connection a fork must forget."""

    received: bytearray


def fork(request: dict[str, Any], first: int, control: Connection, base: int, seccomp: child.Filter | None) -> tuple[int, int]:
    """A cell for the inputs from `first` on: its pid and the reading end of its result pipe."""
    parent = os.getpid()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        program, inputs, runs = request["program"], request["inputs"][first:], request["runs"]
        output_chars = request["output_chars"]
        memory = base + (request["memory_mb"] << 20)
        seconds = request["cpu_s"] * runs * len(inputs)
        control.received.clear()  # other requests are none of this program's business
        request.clear()
        child.enter({child.RESULT_FD: writing}, parent, memory, seconds, seccomp)
        child.serve(program, inputs, runs, output_chars)
        os._exit(0)
    finally:
        child._exit(child.BROKEN)


def address_space() -> int:
    """Bytes of address space in use, found by asking for a page under ever closer limits: there may be no /proc to read it from."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    low, high = 0, 1 << 40 if hard == resource.RLIM_INFINITY else min(hard, 1 << 40)
    try:
        while high - low > mmap.PAGESIZE:
            middle = (low + high) // 2
            try:
                resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
                mmap.mmap(-1, mmap.PAGESIZE).close()
                high = middle
            except (OSError, MemoryError):
                low = middle
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return high
