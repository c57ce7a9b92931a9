"""Threads of a script, started before the filter that lets none start: they wait until the script asks for a thread, run its function and end.

So their number is bounded whatever the script does, no call that makes a process or thread is ever allowed in a cell, and all of them share the
cell's address space, its limits and its end. Their stacks are part of the memory that the script was given.
"""

import _thread
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

COUNT = 16
STACK_BYTES = 2 << 20  # enough for Python's own recursion limit
DEEP_STACK_BYTES = 256 << 20  # of one of them, at most, for scripts that start a thread to recurse deeply
DEEP_SHARE = 4  # of the script's memory, at most one in so many bytes is the deep stack
ASKED_FOR = re.compile("thread|executor", re.IGNORECASE)  # asyncio's and concurrent.futures' threads are run by executors


class _Parked:
    """One waiting thread."""

    def __init__(self, stack_bytes: int):
        self.stack_bytes = stack_bytes
        self.call: tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]] | None = None
        self.told = _thread.allocate_lock()
        self.told.acquire()
        _thread.stack_size(stack_bytes)
        self.handle: Any = None
        if sys.version_info >= (3, 13):
            self.handle = _thread.start_joinable_thread(self.wait, daemon=True)
            self.ident = self.handle.ident
        else:
            self.ident = _thread.start_new_thread(self.wait, ())

    def wait(self) -> None:
        self.told.acquire()
        assert self.call is not None
        function, positional, named = self.call
        self.call = None
        function(*positional, **named)


class Threads:
    """What a script's threads are taken from."""

    def __init__(self, memory_bytes: int):
        """Starts them, as many as there is room for. memory_bytes: what the script may use in all."""
        self._free: list[_Parked] = []
        self._lock = _thread.allocate_lock()
        before = _thread.stack_size()
        try:
            for stack_bytes in (min(DEEP_STACK_BYTES, memory_bytes // DEEP_SHARE), *[STACK_BYTES] * (COUNT - 1)):
                self._free.append(_Parked(stack_bytes))
        except (RuntimeError, ValueError):  # the machine has no room for more threads; or for such a stack
            pass
        finally:
            _thread.stack_size(before)

    def offer(self) -> None:
        """From now on `threading` and what stands on it take these threads."""
        for module, name, start in (
            (_thread, "start_new_thread", self.start),
            (_thread, "start_new", self.start),
            (threading, "_start_new_thread", self.start),
            (_thread, "start_joinable_thread", self.start_joinable),
            (threading, "_start_joinable_thread", self.start_joinable),
        ):
            if hasattr(module, name):
                setattr(module, name, start)

    def start(self, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> int:
        """`_thread.start_new_thread`. Raises RuntimeError when all were taken."""
        return self._take(function, args, kwargs or {}).ident

    def start_joinable(self, function: Callable[..., object], handle: object = None, daemon: bool = True) -> object:
        """`_thread.start_joinable_thread`, as `Thread.start` calls it: the thread is joined by the handle that it waited with."""
        handle = self._take(function, (), {}).handle
        if isinstance(thread := getattr(function, "__self__", None), threading.Thread):
            thread._handle = handle  # type: ignore[attr-defined]
        return handle

    def _take(self, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Parked:
        """Of the stacks that are large enough the smallest, else the largest."""
        wanted = _thread.stack_size()
        with self._lock:
            if not self._free:
                raise RuntimeError("can't start new thread")
            enough = [parked for parked in self._free if parked.stack_bytes >= wanted]
            taken = min(enough, key=lambda parked: parked.stack_bytes) if enough else max(self._free, key=lambda parked: parked.stack_bytes)
            self._free.remove(taken)
        taken.call = function, args, kwargs
        taken.told.release()
        return taken


def wait_for_all() -> None:
    """As an interpreter does at its end: waits for threads that are not daemons."""
    threading._shutdown()  # type: ignore[attr-defined]
    for thread in threading.enumerate():  # since Python 3.13 `_shutdown` knows only threads that it started itself
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
