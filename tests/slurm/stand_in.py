#!/usr/bin/env python3
"""In the place of the trainer's Python: says how node.sh called it, then does what STAND_IN asks.

STAND_IN=CODE   ends with this exit code
STAND_IN=run    starts one rank, which says a second after it was asked to stop how often it was, and ends later: real ranks leave together, and
                srun kills what still runs where one has left
"""

import os
import signal
import subprocess
import sys
import time

HOST = os.uname().nodename
SHOWN = ("GLOO_", "NCCL_", "CUDA_", "PYXIS_STUB_", "FI_")


def rank() -> int:
    times = 0

    def told(number: int, frame: object) -> None:
        nonlocal times
        times += 1

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, told)
    print(f"{HOST}: rank is ready", flush=True)
    deadline = time.monotonic() + 120
    while not times and time.monotonic() < deadline:
        time.sleep(0.05)
    end = time.monotonic() + 1
    while time.monotonic() < end:  # a signal cuts a sleep short
        time.sleep(0.05)
    print(f"{HOST}: rank was told {times} times", flush=True)
    time.sleep(5)
    return 0 if times else 9


if __name__ == "__main__":
    if sys.argv[1:] == ["rank"]:
        sys.exit(rank())
    print(f"{HOST}: {' '.join(sys.argv[1:])}", flush=True)
    for name, value in sorted(os.environ.items()):
        if name.startswith(SHOWN):
            print(f"{HOST}: {name}={value}", flush=True)
    behaviour = os.environ.get("STAND_IN", "0")
    if behaviour != "run":
        sys.exit(int(behaviour))
    sys.exit(subprocess.Popen([sys.executable, __file__, "rank"], start_new_session=True).wait())
