"""The executor's protocol: a request goes in, one typed outcome per input comes out, in order.

A sandbox that cannot be reached or dies raises `ExecutorUnavailable`; it never becomes an outcome, so it never becomes a reward.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from azr_nemo.sandbox.limits import Limits as Limits
from azr_nemo.sandbox.script import Script, ScriptResult


class Status(StrEnum):
    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_TOO_LARGE = "output_too_large"
    NOT_LITERAL = "not_literal"
    NONDETERMINISTIC = "nondeterministic"
    SYNTAX = "syntax"
    FORBIDDEN = "forbidden"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Request:
    """One program and the argument texts it is called with. limits: None for the executor's own. deterministic: also demand that reprs agree when
    each call runs twice in one worker and once more in a worker with another hash seed."""

    program: str
    inputs: tuple[str, ...]
    limits: Limits | None = None
    deterministic: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one call. value: the repr of a literal when status is ok. error: class and message otherwise. Seconds of CPU and wall time."""

    status: Status
    value: str | None = None
    error: str | None = None
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


class ExecutorUnavailable(RuntimeError):
    """The sandbox cannot be started, reached, or died in a way that says nothing of the program. Never graded."""


EXHAUSTED = (Status.TIMEOUT, Status.MEMORY, Status.CRASHED)


def confirmed(first: Outcome, second: Outcome) -> Outcome:
    """The outcome of a call whose first worker said ok, now that a worker with another hash seed ran it too."""
    cpu_s, wall_s = first.cpu_s + second.cpu_s, first.wall_s + second.wall_s
    if second.ok and second.value == first.value:
        return Outcome(Status.OK, first.value, None, cpu_s, wall_s)
    if second.status in EXHAUSTED:
        return replace(second, cpu_s=cpu_s, wall_s=wall_s)
    how = "gave another output" if second.ok else f"ended with {second.status}"
    return Outcome(Status.NONDETERMINISTIC, None, f"under another hash seed the call {how}", cpu_s, wall_s)


class Executor(Protocol):
    """Whoever executes. An implementation derives from this class and gives `submit`, `describe` and `close`."""

    def submit(self, request: Request) -> Future[list[Outcome]]:
        """Queues a request; the future yields one outcome per input, in order, or raises ExecutorUnavailable. `asyncio.wrap_future` makes it
        awaitable; `cancel()` drops it when it has not started. Blocks while the bounded queue is full."""
        ...

    def submit_script(self, script: Script) -> Future[ScriptResult]:
        """Queues a whole script, as `submit` does a request. For evaluation: what a script prints is what it says of itself."""
        ...

    def run(self, requests: Iterable[Request]) -> list[list[Outcome]]:
        """Runs all and returns their outcomes in the requests' order. Raises ExecutorUnavailable for the first that had to go without; those that
        were not begun are dropped."""
        futures: list[Future[list[Outcome]]] = []
        try:
            for request in requests:
                futures.append(self.submit(request))
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def describe(self) -> str:
        """One line for people: the rung of isolation, the number of workers."""
        ...

    def close(self) -> None:
        """Ends everything. Requests without an outcome raise ExecutorUnavailable. Bounded in time; may be repeated."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
