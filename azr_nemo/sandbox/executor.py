"""The executor's protocol: a request goes in, one typed outcome per input comes out, in order.

A sandbox that cannot be reached or dies raises `ExecutorUnavailable`; it never becomes an outcome, so it never becomes a reward.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

from azr_nemo.errors import UserError
from azr_nemo.sandbox.local.jailed.canonical import agreed_text
from azr_nemo.settings.field import check_value
from azr_nemo.settings.schema import ExecutorConfig


@dataclass(frozen=True)
class Limits:
    """Limits of one program. wall_s: seconds for one call of `f` (and for the program's import-time code); cpu_s likewise in CPU seconds;
    memory_mb: address space the program may add, in MiB; output_chars: longest repr that is accepted, never cut.
    The bounds are those of the settings executor.*; raises UserError for what lies outside of them."""

    wall_s: float = 5.0
    cpu_s: float = 5.0
    memory_mb: int = 512
    output_chars: int = 8000

    def __post_init__(self) -> None:
        for part in fields(self):
            check_value(part.name, getattr(self, part.name), ABOUT[part.name])


class ScriptStatus(StrEnum):
    FINISHED = "finished"
    TIMEOUT = "timeout"
    FLOODED = "flooded"  # a stream was longer than allowed; the script was ended


@dataclass(frozen=True)
class Script:
    """Python source and what it reads on its standard input. limits: `wall_s`, `cpu_s` and `memory_mb` hold for the whole script; stream_bytes: longest
    standard output or error."""

    source: str
    stdin: str = ""
    limits: Limits = field(default_factory=Limits)
    stream_bytes: int = 1 << 20


@dataclass(frozen=True)
class ScriptResult:
    """How a script ended. return_code: below zero is a signal's number, None after a timeout. The streams hold what came before the end."""

    status: ScriptStatus
    return_code: int | None
    stdout: str
    stderr: str
    cpu_s: float
    wall_s: float


ABOUT = {part.name: part.metadata["about"] for part in fields(ExecutorConfig)}


def of_timeout(seconds: float, asked: str = "--timeout") -> Limits:
    """Limits of so many seconds of wall and of CPU time. asked: how the user says it. Raises UserError."""
    try:
        return Limits(seconds, seconds)
    except UserError:
        bounds = ABOUT["wall_s"].bounds()
        raise UserError(f"{asked} {seconds:g}: expected seconds {bounds}") from None


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
    """One program and the argument texts it is called with. limits: None for the executor's own. deterministic: also demand that values agree when
    each call runs twice in one worker and once more in a worker with another hash seed."""

    program: str
    inputs: tuple[str, ...]
    limits: Limits | None = None
    deterministic: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one call. value: the canonical text of a literal when status is ok. error: class and message otherwise. Seconds of CPU and wall
    time."""

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
    if second.ok and (value := agreed_text(first.value, second.value)) is not None:
        return Outcome(Status.OK, value, None, cpu_s, wall_s)
    if second.status in EXHAUSTED:
        return replace(second, cpu_s=cpu_s, wall_s=wall_s)
    how = "gave another output" if second.ok else f"ended with {second.status}"
    return Outcome(Status.NONDETERMINISTIC, None, f"under another hash seed the call {how}", cpu_s, wall_s)


T = TypeVar("T")
Progress: TypeAlias = Callable[[int], None]  # told how many more are done


def gather(futures: Iterable[Future[T]], progress: Progress | None = None) -> list[T]:
    """The results of futures that are made as they are asked for, in order. progress: told of each that is done, also while others are still
    being made. Raises what the first failed one raises; those that were not begun are dropped."""
    made: list[Future[T]] = []
    told = 0

    def tell(all_of: int) -> None:
        nonlocal told
        if progress and all_of > told:
            progress(all_of - told)
        told = max(told, all_of)

    try:
        for future in futures:
            made.append(future)
            done = told
            while done < len(made) and made[done].done():
                done += 1
            tell(done)
        results = []
        for future in made:
            results.append(future.result())
            tell(len(results))
        return results
    except BaseException:
        for future in made:
            future.cancel()
        raise


class Executor(Protocol):
    """Whoever executes. An implementation derives from this class and gives `submit`, `describe` and `close`."""

    def submit(self, request: Request) -> Future[list[Outcome]]:
        """Queues a request; the future yields one outcome per input, in order, or raises ExecutorUnavailable. `asyncio.wrap_future` makes it
        awaitable; `cancel()` drops it when it has not started. Blocks while the bounded queue is full."""
        ...

    def submit_script(self, script: Script) -> Future[ScriptResult]:
        """Queues a whole script, as `submit` does a request. For evaluation: what a script prints is what it says of itself."""
        ...

    def run(self, requests: Iterable[Request], progress: Progress | None = None) -> list[list[Outcome]]:
        """Runs all and returns their outcomes in the requests' order. progress: as of `gather`. Raises ExecutorUnavailable for the first that had
        to go without; those that were not begun are dropped."""
        return gather((self.submit(request) for request in requests), progress)

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
