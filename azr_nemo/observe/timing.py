"""Where the seconds of a step went, and how long is left."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PhaseClock:
    """Charges every moment to exactly one phase: the innermost one open, or `other`.

    So the waiting for the executor inside the estimate phase counts as `execute_wait` and not as `estimate`, and the phases of a step
    add up to its length. For one thread.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._mark = now()
        self._open: list[str] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charges the block's time to `name`, less what phases inside it take. Phases nest, also in themselves."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def lap(self) -> dict[str, float]:
        """The metrics of the time since the last lap: `step/seconds` and `time/<phase>_s` of each phase that occurred; then starts anew."""
        self._charge()
        seconds, self._seconds = self._seconds, defaultdict(float)
        return {"step/seconds": sum(seconds.values()), **{f"time/{name}_s": spent for name, spent in seconds.items()}}

    def _charge(self) -> None:
        now = self._now()
        self._seconds[self._open[-1] if self._open else "other"] += now - self._mark
        self._mark = now


def remaining(done: float, total: float | None, elapsed: float) -> float | None:
    """Seconds left at the pace so far (`done` of `total` in `elapsed` seconds); None while there is nothing to judge by."""
    if total is None or done <= 0:
        return None
    return max(total - done, 0) * elapsed / done


def clock_text(seconds: float | None) -> str:
    """A duration to read: 0:07, 12:34, 1:02:03, 2d 03:04:05; -:-- when unknown."""
    if seconds is None:
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
