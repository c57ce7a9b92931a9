"""Where the seconds and the memory of a step went, and how long is left."""

import contextlib
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class PhaseClock:
    """Charges every moment to exactly one phase: the innermost one open, or `other`.

    So the waiting for the executor inside the estimate phase counts as `execute` and not as `estimate`, and the phases of a step
    add up to its length. Peak memory is read whenever the phase changes, so each phase has its own. For one thread.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, memory: Callable[[], dict[str, float]] = dict) -> None:
        """memory: the peaks in GiB since its last call, by kind (MemoryMeter.lap)."""
        self.now, self._memory = now, memory
        self._mark = now()
        self._open: list[str] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._peaks: defaultdict[str, float] = defaultdict(float)
        self._overall: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str, peaks: bool = True) -> Iterator[None]:
        """Charges the block's time to `name`, less what phases inside it take. Phases nest, also in themselves. peaks: read the memory at
        both ends; not worth it for what happens a thousand times a step."""
        self._charge(peaks)
        self._open.append(name)
        try:
            yield
        finally:
            self._charge(peaks)
            self._open.pop()

    def move(self, source: str, target: str, seconds: float) -> None:
        """Charges seconds that went to `source` to `target` instead: for a part that only its own code can time. At most what source has."""
        self._charge()
        moved = min(max(seconds, 0.0), self._seconds[source])
        self._seconds[source] -= moved
        self._seconds[target] += moved

    def lap(self) -> dict[str, float]:
        """The metrics of the time since the last lap: `step/seconds`, `time/<phase>_s` of each phase that occurred and
        `memory/<phase>_<kind>_gib` of its peaks, and `memory/peak_<kind>_gib` of the highest so far; then starts anew."""
        self._charge()
        seconds, self._seconds = self._seconds, defaultdict(float)
        peaks, self._peaks = self._peaks, defaultdict(float)
        return {
            "step/seconds": sum(seconds.values()),
            **{f"time/{name}_s": spent for name, spent in seconds.items()},
            **peaks,
            **self._overall,
        }

    def _charge(self, peaks: bool = True) -> None:
        now = self.now()
        phase = self._open[-1] if self._open else "other"
        self._seconds[phase] += now - self._mark
        self._mark = now
        for kind, peak in self._memory().items() if peaks else ():
            name = f"memory/{phase}_{kind}_gib"
            self._peaks[name] = max(self._peaks[name], peak)
            overall = f"memory/peak_{kind}_gib"
            self._overall[overall] = max(self._overall[overall], peak)


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


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # of proc(5): sets the peak resident size back to the current one


class MemoryMeter:
    """Peaks in GiB. Executor workers are processes of their own and are not counted.

    Where the system cannot set its peak back (only Linux can, and not under every container's /proc) a reading is the peak since the process
    began, which is never too small.
    """

    def __init__(self) -> None:
        self.lap()

    def lap(self) -> dict[str, float]:
        """`rss` and, once a GPU is used, `gpu`: the peaks since the last call."""
        peaks = {"rss": _peak_rss()}
        _reset()
        # Looked up, not imported: whoever uses no GPU should not pay for torch here.
        if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
            peaks["gpu"] = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.reset_peak_memory_stats()
        return peaks


def _peak_rss() -> float:
    try:
        if found := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE):
            return int(found[1]) / 2**20
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # macOS counts bytes, Linux KiB


def _reset() -> None:
    with contextlib.suppress(OSError):
        CLEAR.write_text(RESET_PEAK, encoding="utf-8")
