"""The most memory that this process held between two readings, on the host and on its GPU."""

import contextlib
import re
import resource
import sys
from pathlib import Path

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
