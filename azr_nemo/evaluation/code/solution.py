"""Programs that call a solution in the jail, and the outcomes of many such calls, until the first that fails."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from azr_nemo.evaluation.code.in_jail import LONGEST
from azr_nemo.sandbox.executor import Executor, Limits, Outcome, Request, Status
from azr_nemo.tasks.parsing import NotLiteral, read_literal

IN_JAIL = Path(__file__).with_name("in_jail.py").read_text(encoding="utf-8")
MEMORY_MB = 4096  # EvalPlus' figure; address space, most of which nobody touches
LARGEST_GROUP = 16
RIGHT = "right"

MOST_CHARS = 4 * LONGEST  # of an outcome: a text of `in_jail.text`, quoted and escaped

R = TypeVar("R")
T = TypeVar("T")


def limits(wall_s: float) -> Limits:
    """For one call: seconds of wall and of CPU time."""
    return Limits(wall_s=wall_s, cpu_s=wall_s, memory_mb=MEMORY_MB, output_chars=MOST_CHARS)


def program(maker: str, *arguments: str) -> str:
    """A program whose `f` is what `in_jail.<maker>(*arguments)` gives. The solution among the arguments runs in a namespace of its own, so that it
    and `f` share no names."""
    return f"{IN_JAIL}\n\nf = {maker}({', '.join(map(repr, arguments))})\n"


def returned(outcome: Outcome) -> str | None:
    """The text that the call returned, or None when it did not return one."""
    if not outcome.ok or outcome.value is None:
        return None
    try:
        value = read(outcome.value)
    except NotLiteral:
        return None
    return value if isinstance(value, str) else None


def read(text: str) -> Any:
    """The value of a literal from the jail. Longer ones than `read_literal` takes: whole outputs are compared here. Raises NotLiteral."""
    return read_literal(text, MOST_CHARS)


def reason(outcome: Outcome) -> str:
    """The slug of a call that gave no text."""
    if outcome.ok or outcome.status is Status.NOT_LITERAL or (outcome.error or "").startswith("Refused: "):
        return "not_literal"
    if (outcome.error or "").startswith(("SyntaxError: ", "IndentationError: ", "TabError: ")):
        return "syntax"
    return outcome.status.value


def in_turn(
    count: int, start: Callable[[int, int], "Future[list[R]]"], grade: Callable[[int, R], str], seconds: float, spent: Callable[[R], float]
) -> "Future[tuple[int, str]]":
    """Runs tests 0..count in groups of 1, 2, 4, ... LARGEST_GROUP until one is not right: a solution that never returns costs few time limits.

    start(first, last): begins a group. grade(index, result): RIGHT or a slug. spent(result): its seconds; more than `seconds` in all is a timeout.
    Yields the number of tests that passed, and RIGHT or the slug of the one that did not. Raises what start and the futures raise.
    """
    answer: Future[tuple[int, str]] = Future()
    answer.set_running_or_notify_cancel()
    used = 0.0

    def group(first: int, size: int) -> None:
        last = min(first + size, count)
        if first == count:
            answer.set_result((count, RIGHT))
            return

        def done(future: "Future[list[R]]") -> None:
            nonlocal used
            try:
                for index, result in enumerate(future.result(), first):
                    used += spent(result)
                    verdict = grade(index, result)
                    if verdict != RIGHT or used > seconds:
                        answer.set_result((index, verdict if verdict != RIGHT else "timeout"))
                        return
                group(last, min(2 * size, LARGEST_GROUP))
            except BaseException as error:  # belongs to the one who waits, not to the executor's thread
                answer.set_exception(error)

        start(first, last).add_done_callback(done)

    group(0, 1)
    return answer


def calls_in_turn(
    executor: Executor, source: str, inputs: Sequence[str], grade: Callable[[int, str], str], wall_s: float, seconds: float
) -> "Future[tuple[int, str]]":
    """`in_turn` for a program's calls. grade(index, text): of what the call returned."""

    def start(first: int, last: int) -> "Future[list[Outcome]]":
        return executor.submit(Request(source, tuple(inputs[first:last]), limits(wall_s)))

    def graded(index: int, outcome: Outcome) -> str:
        found = returned(outcome)
        return reason(outcome) if found is None else grade(index, found)

    return in_turn(len(inputs), start, graded, seconds, lambda outcome: outcome.wall_s)


def known(value: T) -> "Future[T]":
    """A future that already has its result."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def then(future: "Future[R]", change: Callable[[R], "Future[T] | T"]) -> "Future[T]":
    """The future of `change(result)`, which may itself be a future. Raises what either raises."""
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()

    def settle(done: "Future") -> None:
        try:
            value = done.result()
            if done is future:
                value = change(value)
                if isinstance(value, Future):
                    value.add_done_callback(settle)
                    return
            answer.set_result(value)
        except BaseException as error:  # belongs to the one who waits
            answer.set_exception(error)

    future.add_done_callback(settle)
    return answer
