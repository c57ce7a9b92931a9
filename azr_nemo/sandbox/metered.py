"""Counts what an executor does, so that a step can say how fast it was."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from azr_nemo.sandbox.executor import Executor, Outcome, Request, Script, ScriptResult


class MeteredExecutor(Executor):
    """An executor that counts programs and the time in which it had any. It does not own `executor`: whoever made that closes it."""

    def __init__(self, executor: Executor, now: Callable[[], float] = time.monotonic):
        self._executor, self._now = executor, now
        self._lock = threading.Lock()
        self._in_flight = self._done = 0
        self._busy_s = 0.0
        self._since = 0.0  # when it last got work, or was last read while it had some

    def submit(self, request: Request) -> Future[list[Outcome]]:
        """See `Executor.submit`."""
        return self._metered(lambda: self._executor.submit(request))

    def submit_script(self, script: Script) -> Future[ScriptResult]:
        """See `Executor.submit_script`."""
        return self._metered(lambda: self._executor.submit_script(script))

    def describe(self) -> str:
        """See `Executor.describe`."""
        return self._executor.describe()

    def close(self) -> None:
        """Does nothing: see the class."""

    def lap(self) -> dict[str, float]:
        """`throughput/programs_per_s` since the last call: programs that ended, by the seconds in which at least one was with the executor.
        Empty when none ended."""
        with self._lock:
            self._charge()
            done, self._done = self._done, 0
            busy_s, self._busy_s = self._busy_s, 0.0
        return {"throughput/programs_per_s": done / max(busy_s, 1e-9)} if done else {}

    def _metered(self, submit: Callable[[], Future[Any]]) -> Future[Any]:
        with self._lock:
            self._charge()
            self._in_flight += 1
        try:
            future = submit()
        except BaseException:
            self._ended(0)
            raise
        future.add_done_callback(lambda ended: self._ended(0 if ended.cancelled() else 1))
        return future

    def _ended(self, programs: int) -> None:
        with self._lock:
            self._charge()
            self._in_flight -= 1
            self._done += programs

    def _charge(self) -> None:
        """Charges the time since the last change. The caller holds the lock."""
        now = self._now()
        if self._in_flight:
            self._busy_s += now - self._since
        self._since = now
