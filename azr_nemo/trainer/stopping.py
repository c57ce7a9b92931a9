"""SIGUSR1, SIGTERM and SIGINT ask a run to stop: the step ends, every rank saves it and leaves. Any rank may get the signal, or all of them.

Rank 0 decides, at the end of its step. The others may be inside a collective then, where no handler of Python's runs: a thread hears their
signals and leaves word for rank 0 in the job's store.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import torch.distributed as dist

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# Slurm signals every process of a step and torchrun passes on to its workers what it gets: one request may arrive more than once.
ONE_REQUEST_S = 2.0
STOPPED_AT_ONCE = 130
KEY = "stop"


class StoppedAtOnce(KeyboardInterrupt):
    """A signal while there was nothing to save yet; the same command begins again."""


class _Counter:
    """Tells the first request from a second one, which stops at once. SIGUSR1 is what batch systems send ahead of time: never more than a
    request."""

    def __init__(self) -> None:
        self.name = ""
        self._first: float | None = None

    def take(self, number: int) -> bool:
        """Whether this signal stops at once."""
        self.name = self.name or signal.Signals(number).name
        if number == signal.SIGUSR1:
            return False
        now = time.monotonic()
        if self._first is None:
            self._first = now
        return now - self._first > ONE_REQUEST_S


class StopRequest:
    """On rank 0: a context in which `requested` names the signal that asked the run to stop, if any. While `at_once`, before there is
    anything to save, the first signal raises StoppedAtOnce; a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.at_once = True
        self._leaving = False
        self._counter = _Counter()
        self._store: dist.Store | None = None
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> str:
        if not self._counter.name and self._store is not None and self._store.check([KEY]):
            self._counter.name = self._store.get(KEY).decode()
        return self._counter.name

    def connect(self, store: dist.Store) -> None:
        """From now on the other ranks are heard, and the first signal only asks."""
        self._store, self.at_once = store, False

    def leave(self) -> None:
        """All is saved: from now on signals are ignored, to the end of the process. A launcher sends them to whoever leaves last."""
        self._leaving = True

    def check(self) -> None:
        """Raises StoppedAtOnce when a stop was asked for: between two commands, where nothing needs saving."""
        if self.requested:
            raise StoppedAtOnce

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._leaving:
            return
        if self._counter.take(number):
            raise KeyboardInterrupt
        if self.at_once:
            self.at_once = False
            raise StoppedAtOnce

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._leaving else handler)


class StopRelay:
    """On every other rank: tells rank 0 of signals. Before the ranks have met a signal ends this one, and after a second request, too."""

    def __init__(self) -> None:
        self._counter = _Counter()
        self._open_store: Callable[[], dist.Store] | None = None
        self._leaving = False
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        for number in SIGNALS:
            # What runs in Python is nothing; the interpreter writes the signal's number to the pipe whatever the main thread waits for.
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="stop-relay", daemon=True).start()

    def connect(self, open_store: Callable[[], dist.Store]) -> None:
        """From now on rank 0 is told."""
        self._open_store = open_store

    def leave(self) -> None:
        """Rank 0 has let this one go: from now on signals are ignored, to the end of the process."""
        self._leaving = True

    def _listen(self) -> None:
        store = None
        while number := os.read(self._read, 1):
            if number[0] not in SIGNALS or self._leaving:
                continue
            if self._counter.take(number[0]):
                os._exit(STOPPED_AT_ONCE)
            if self._open_store is None:
                os._exit(os.EX_TEMPFAIL)
            try:
                store = store or self._open_store()
                store.set(KEY, self._counter.name)
            except (RuntimeError, ValueError) as error:
                print(f"azr-nemo: rank 0 cannot be told of {self._counter.name}: {error}", file=sys.stderr, flush=True)
