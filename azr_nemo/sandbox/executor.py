"""The executor's protocol: a request goes in, one typed outcome per input comes out, in order.

A sandbox that cannot be reached or dies raises `ExecutorUnavailable`; it never becomes an outcome, so it never becomes a reward.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self


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
class Limits:
    """Limits of one program. wall_s: seconds for one call of `f` (and for the program's import-time code); cpu_s likewise in CPU seconds;
    memory_mb: address space the program may add, in MiB; output_chars: longest repr that is accepted, never cut."""

    wall_s: float = 5.0
    cpu_s: float = 5.0
    memory_mb: int = 512
    output_chars: int = 8000


@dataclass(frozen=True)
class Request:
    """One program and the argument texts it is called with. deterministic: also demand that reprs agree when each call runs twice in one
    worker and once more in a worker with another hash seed."""

    program: str
    inputs: tuple[str, ...]
    limits: Limits = Limits()
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


class Executor(Protocol):
    def submit(self, request: Request) -> Future[list[Outcome]]:
        """Queues a request; the future yields one outcome per input, in order, or raises ExecutorUnavailable. `asyncio.wrap_future` makes it
        awaitable; `cancel()` drops it when it has not started. Blocks while the bounded queue is full."""
        ...

    def run(self, requests: Iterable[Request]) -> list[list[Outcome]]:
        """Runs all and returns their outcomes in the requests' order."""
        ...

    def describe(self) -> str:
        """One line for people: the rung of isolation, the number of workers."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
