"""HEALTHCHECK of the images: exit code 1 and one sentence when the run directories cannot be written, or a run in them has come to a halt.

A run holds a lock on `.lock` in its directory and writes there at every step. Where one is locked and nothing in it is younger than
AZR_NEMO_HEALTH_S seconds (7200, as runtime.watchdog_s), its run hangs. Without a run (an evaluation, a sandbox server) only the volume is
checked. Standard library only, some 20 ms.
"""

import os
import sys
import time
from pathlib import Path


def locked_inodes() -> set[int]:
    """Inodes that a process of this container holds an flock on."""
    return {
        int(line.split()[5].rpartition(":")[2])
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()
        if " FLOCK " in f" {line} "
    }


def newest(folder: Path) -> float:
    """When something in the run directory was last written, in seconds since the epoch; checkpoints are one level down."""
    return max(entry.stat().st_mtime for pattern in ("*", "*/*") for entry in folder.glob(pattern) if entry.exists())


def complaint(runs: Path, longest_s: float, now: float) -> str:
    """What is wrong with the runs under this folder, in a sentence; empty when nothing is."""
    if not os.access(runs, os.W_OK):
        return f"{runs} cannot be written by user {os.getuid()}: mount a directory that can"
    held = locked_inodes()
    for lock in sorted(runs.glob("*/.lock")):
        if lock.stat().st_ino in held and (silent := now - newest(lock.parent)) > longest_s:
            return f"the run in {lock.parent} has written nothing for {silent:.0f} s (AZR_NEMO_HEALTH_S={longest_s:.0f}): it hangs"
    return ""


if __name__ == "__main__":
    found = complaint(Path(os.environ.get("AZR_NEMO_RUNS", "/runs")), float(os.environ.get("AZR_NEMO_HEALTH_S", "7200")), time.time())
    print(found or "healthy")
    sys.exit(1 if found else 0)
