"""Runs of the command line in forks of one process that has imported everything, so that a run begins in a second instead of ten.

A run is a process of its own all the same: it is killed, signalled and waited for like one that a user starts.
"""

import atexit
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import process_trees


@dataclass(frozen=True)
class Ended:
    """How a run ended. code: its exit code, negative for a signal; output: what it printed, on both streams."""

    code: int
    output: str


class Run:
    """A run that was started, and dies with the test that started it. Its output grows in the file `log`."""

    def __init__(self, server: "RunServer", pid: int, log: Path):
        self._server, self.pid, self.log = server, pid, log
        self._code: int | None = None
        self._number = process_trees.next_number()
        process_trees.started(self._number, self)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def poll(self) -> int | None:
        """The exit code once the run has ended."""
        if self._code is None:
            self._code = self._server.ask({"poll": self.pid}, 60.0)
            if self._code is not None:
                process_trees.ended(self._number)
        return self._code

    def end(self) -> None:
        """Kills it. What it has started in sessions of their own dies with it: its executor's workers."""
        for kill in (os.killpg, os.kill):  # the latter where it has no session of its own yet
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.01)

    def wait(self, timeout: float = 240.0) -> Ended:
        """Fails when the run has not ended after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        return Ended(code, self.output())


class RunServer:
    """A context. environment: of all its runs, beside that of this process."""

    def __init__(self, **environment: str):
        path = os.pathsep.join(filter(None, [str(Path(process_trees.__file__).parent), os.environ.get("PYTHONPATH")]))
        settings = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", **environment}
        self._process = process_trees.Process(
            [sys.executable, __file__], lasting=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **settings}
        )

    def start(self, arguments: list[str], log: Path) -> Run:
        """Its output goes to the end of the file `log`."""
        pid = self.ask({"start": arguments, "log": str(log)}, 240.0)
        assert pid is not None
        return Run(self, pid, log)

    def ask(self, request: dict[str, Any], timeout: float) -> int | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        assert ready, f"no answer to {request} after {timeout} s"
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._process:
            self._process.kill()


def serve() -> None:
    for module in ("azr_nemo.cli", "azr_nemo.trainer.loop", "transformers.models.llama.modeling_llama", "torch.utils.tensorboard"):
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "poll" in request:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork() or _run(request["start"], request["log"])
        print(json.dumps(answer), flush=True)


def _run(arguments: list[str], log: str) -> int:
    os.setsid()
    out, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, out), (2, out)):
        os.dup2(source, number)
    sys.argv = ["azr-nemo", *arguments]
    code: Any = 0
    try:
        sys.modules["azr_nemo.cli"].main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    serve()
