"""How threads of OpenMP wait for each other: briefly spinning on an idle machine, asleep on one that has other work. Chosen before torch is loaded.

Left to itself libgomp, torch's OpenMP, spins for milliseconds. Where there are fewer free cores than threads, a spinning thread keeps its core
from the one that it waits for, and a step takes ten times as long (docs/engines.md has what was measured). How threads wait changes no result.
"""

import os
import time
from pathlib import Path

ROUNDS = "10000"  # of libgomp's spinning, some tenths of a millisecond
LOOK_S = 0.2
BUSY_CORES = 0.5  # kept by others
CPU_TIMES = Path("/proc/stat")


def choose_waiting() -> None:
    """Sets what libgomp reads when it is loaded, unless the user has. One of several ranks does not look: it would see the others begin."""
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return
    alone = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1
    if alone and busy_cores(LOOK_S) > BUSY_CORES:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    else:
        os.environ["GOMP_SPINCOUNT"] = ROUNDS


def busy_cores(seconds: float) -> float:
    """How many cores the machine's processes keep busy during so many seconds, in which this one sleeps; 0 where the system does not tell."""
    before = _busy_s()
    time.sleep(seconds)
    return (_busy_s() - before) / seconds


def _busy_s() -> float:
    """CPU seconds of user, nice and system time since the machine began."""
    try:
        return sum(map(int, CPU_TIMES.read_text(encoding="utf-8").split(maxsplit=4)[1:4])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0
