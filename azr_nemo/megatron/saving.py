"""Writing a checkpoint aside: each rank copies its part and a thread of its own writes it; rank 0 is told over the job's store.

No collective runs in these threads, so training's own are never disturbed. A rank has at most one copy: it takes the next one when the one
before is written.
"""

import itertools
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written
from azr_nemo.megatron import distributed
from azr_nemo.megatron.checkpoint import Snapshot

POLL_S = 0.05
_numbers = itertools.count(1)  # of this process's saves: all ranks save the same, in the same order


class Writer:
    """Writes one rank's snapshots, one after another."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, snapshot: Snapshot, directory: Path, asynchronous: bool) -> "Saving":
        """Has the snapshot written, by a thread or at once. Rank 0 may wait for what is returned until all ranks' parts are written."""
        self.wait()  # the copy before must be gone; its files are written, or rank 0 would not have begun another save
        key = f"saved/{next(_numbers)}"
        work = (snapshot, directory, key)
        if asynchronous:
            self._thread = threading.Thread(target=_write, args=work, name="checkpoint-writer", daemon=True)
            self._thread.start()
        else:
            _write(*work)
        return Saving(key, dist.get_world_size())

    def wait(self) -> None:
        """Until what was begun is written, or has failed."""
        if self._thread is not None:
            self._thread.join()


def _write(snapshot: Snapshot, directory: Path, key: str) -> None:
    """Leaves the sizes and hashes of the written files, or what went wrong, in the store: here nobody could catch it."""
    report: dict[str, object]
    try:
        report = {"files": snapshot.write(directory)}
    except Exception as error:
        report = {"error": f"rank {snapshot.rank}: {error}" if snapshot.rank else str(error)}
    with suppress(RuntimeError):  # the store is gone together with rank 0, so nobody is left to be told
        distributed.open_store().set(f"{key}/{snapshot.rank}", json.dumps(report))


@dataclass(frozen=True)
class Saving:
    """A checkpoint that all ranks are writing, as rank 0 sees it."""

    key: str
    ranks: int

    def wait(self, limit_s: float) -> dict[str, Written]:
        """The size and the hash of every rank's files by path. Raises UserError when one could not be written, or not within limit_s seconds; in the
        former case only once every rank has ended."""
        store = distributed.open_store()
        keys = [f"{self.key}/{rank}" for rank in range(self.ranks)]
        deadline = time.monotonic() + limit_s
        while not store.check(keys):
            if time.monotonic() > deadline:
                missing = ", ".join(str(rank) for rank, key in enumerate(keys) if not store.check([key]))
                raise UserError(f"rank {missing} had not written its part after {limit_s:.0f} s")
            time.sleep(POLL_S)
        reports = [json.loads(store.get(key)) for key in keys]
        for report in reports:
            if "error" in report:
                raise UserError(report["error"])
        return {name: Written(*file) for report in reports for name, file in report["files"].items()}
