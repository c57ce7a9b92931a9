"""Commands and jobs of ranks in forks of one process that has imported everything, so that each begins in a second instead of ten.

A run is a process of its own all the same: it is killed, signalled and waited for like one that a user starts.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import process_trees

IMPORTED = (
    "azr_nemo.cli",
    "azr_nemo.trainer.loop",
    "azr_nemo.evaluation.command",
    "azr_nemo.conversion.convert",
    "azr_nemo.conversion.verify",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "torch.utils.tensorboard",
)


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
        """Sends a signal; one that has ended hears none."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""  # it has not begun to speak

    def poll(self) -> int | None:
        """The exit code once the run has ended."""
        if self._code is None:
            self._code = self._server.ask({"poll": self.pid}, 60.0)
            if self._code is not None:
                process_trees.ended(self._number)
        return self._code

    def end(self) -> None:
        """Kills it. What it has started in sessions of their own dies with it: its executor's workers."""
        if self.poll() is None:
            for kill in (os.killpg, os.kill):  # the latter where it has no session of its own yet
                with suppress(ProcessLookupError):
                    kill(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.01)

    def wait(self, timeout: float = 1200.0) -> Ended:
        """Fails when the run has not ended after `timeout` seconds: long, for a machine that is at work, as a run dies with its test anyway."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        return Ended(code, self.output())


class RunServer:
    """A context."""

    def __init__(self) -> None:
        ours = [
            folder for folder in sys.path if Path(folder).is_relative_to(Path(process_trees.__file__).parent)
        ]  # where tests find their helpers
        path = os.pathsep.join(filter(None, [*ours, os.environ.get("PYTHONPATH")]))
        settings = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
        self._process = process_trees.Process(
            [sys.executable, __file__], lasting=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **settings},
        )  # fmt: skip
        self._logs = tempfile.TemporaryDirectory(prefix="azr-runs-")  # of runs whose logs nobody has named a place for

    def start(
        self, words: list[Any], log: Path | None = None, script: Path | None = None, folder: Path | None = None, **environment: str
    ) -> Run:
        """`azr-nemo WORDS`, or a script with these arguments. Its output goes to the end of the file `log`. folder: where it works."""
        log = log or Path(tempfile.mkdtemp(dir=self._logs.name)) / "log"
        request = {
            "words": list(map(str, words)), "log": str(log), "script": script and str(script), "folder": folder and str(folder),
            "environment": environment,
        }  # fmt: skip
        pid = self.ask(request, 240.0)
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
        self._logs.cleanup()


@functools.cache
def shared() -> RunServer:
    """This test session's. For tests that are marked slow: it takes seconds to import everything."""
    assert process_trees.slow, "a test that starts runs or ranks is marked slow"
    server = RunServer()
    process_trees.at_session_end(lambda: server.__exit__(None, None, None))
    return server


class Job:
    """Runs that are the ranks of one job, and die together. Rank 0's output is the job's."""

    def __init__(self, runs: list[Run]):
        self.runs = runs

    def kill(self, number: int) -> None:
        """All ranks, as a launcher does, or a machine that is lost."""
        for run in self.runs:
            run.kill(number)

    def wait(self, timeout: float = 1200.0) -> Ended:
        """How rank 0 ended, once all have."""
        first, *_ = [run.wait(timeout) for run in self.runs]
        return first

    def end(self) -> None:
        for run in self.runs:
            run.end()


def job(script: Path | None, count: int, *words: object, log: Path | None = None, **environment: str) -> Job:
    """Starts a script, or `azr-nemo`, as the ranks of one job, as a launcher of one machine would; a single one needs none. log: of rank 0; the others'
    are beside it."""
    if count == 1:
        return Job([shared().start(list(words), log, script, **environment)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
    logs = [log and (log.with_name(f"{log.name}.{rank}") if rank else log) for rank in range(count)]
    return Job([shared().start(list(words), logs[rank], script, RANK=str(rank), LOCAL_RANK=str(rank), **meet) for rank in range(count)])


def ranks(
    script: Path | None, count: int, *words: object, timeout: float = 1200.0, first_alone: bool = False, **environment: str
) -> list[Ended]:
    """Runs a job of so many ranks; how each ended, by rank. first_alone: only rank 0 is waited for, and the others are killed when it has ended, as
    torchrun does where one fails."""
    started = job(script, count, *words, **environment)
    try:
        first = started.runs[0].wait(timeout)
        if first_alone:
            started.end()
        return [first, *(run.wait(timeout) for run in started.runs[1:])]
    finally:
        started.end()


def command(*words: object, code: int = 0, timeout: float = 1200.0, **environment: str) -> str:
    """What `azr-nemo WORDS` printed, on both streams; fails when it does not end with this exit code."""
    ended = shared().start(list(words), **environment).wait(timeout)
    assert ended.code == code, ended.output
    return ended.output


def serve() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "poll" in request:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork() or _run(**request)
        print(json.dumps(answer), flush=True)


def _run(words: list[str], log: str, script: str | None, folder: str | None, environment: Mapping[str, str]) -> int:
    os.setsid()
    out, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, out), (2, out)):
        os.dup2(source, number)
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))  # as a new interpreter would
    os.chdir(folder or ".")
    code: Any = 0
    try:
        if script is None:
            sys.argv = ["azr-nemo", *words]
            sys.modules["azr_nemo.cli"].main()
        else:
            sys.argv = [script, *words]
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    serve()
