"""Jobs in forked processes: NeMo-Aligner takes half a minute to import, which the test session does once."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import process_trees

LIMIT_S = 600.0


class Job:
    """The ranks of one job, each a fork of this process that runs `work`; what they print is in the files `logs`."""

    def __init__(self, work: Callable[[], None], folder: Path, name: str, ranks: int = 1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.logs = [folder / f"{name}.{rank}.log" for rank in range(ranks)]
        self.pids = [self._fork(work, rank, ranks, port) for rank in range(ranks)]
        self.codes: dict[int, int] = {}
        self.started = time.monotonic()

    def _fork(self, work: Callable[[], None], rank: int, ranks: int, port: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := process_trees.fork():
            return pid
        code = 1
        try:
            os.setpgid(0, 0)
            output = os.open(self.logs[rank], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
            if ranks > 1:
                numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "TORCHELASTIC_RUN_ID": 1}
                os.environ |= {name: str(value) for name, value in numbers.items()}
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> list[int]:
        """Exit codes, negative for signals. Kills what is left after LIMIT_S."""
        while len(self.codes) < len(self.pids):
            for pid in self.pids:
                if pid not in self.codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    self.codes[pid] = os.waitstatus_to_exitcode(ended[1])
                    with suppress(ProcessLookupError):  # NeMo's own helper processes stay behind a rank that ends like this one
                        os.killpg(pid, signal.SIGKILL)
            if time.monotonic() > self.started + LIMIT_S:
                self.kill()
                raise TimeoutError(self.output())
            time.sleep(0.05)
        return [self.codes[pid] for pid in self.pids]

    def kill(self) -> None:
        for pid in self.pids:
            if pid not in self.codes:
                os.killpg(pid, signal.SIGKILL)

    def output(self) -> str:
        return "\n".join(log.read_text() for log in self.logs if log.is_file())
