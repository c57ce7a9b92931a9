"""Small tasks and an executor without a sandbox, for the tests of this folder."""

import ast
import re
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from azr_nemo.sandbox.executor import Outcome, Request, Status
from azr_nemo.tasks.task import Task, TaskType


def adder(number: int) -> str:
    """A program that differs from every other adder."""
    return f"def f(x):\n    return x + {number}"


def adder_task(number: int, type: TaskType = TaskType.DEDUCTION, x: int = 1) -> Task:
    if type is TaskType.INDUCTION:
        inputs = tuple(str(x + i) for i in range(4))
        return Task(type, adder(number), inputs, tuple(str(x + i + number) for i in range(4)), f"Adds {number}.")
    return Task(type, adder(number), (str(x),), (str(x + number),))


def run_adder(request: Request) -> list[Outcome]:
    """What a real executor would answer for an adder and for the identity, and for nothing else."""
    found = re.fullmatch(r"def f\(x\):\n    return x(?: \+ (\d+))?", request.program.strip())
    if not found:
        return [Outcome(Status.ERROR, error="NameError: not an adder")] * len(request.inputs)
    values = [ast.literal_eval(text) for text in request.inputs]
    return [Outcome(Status.OK, repr(value if found[1] is None else value + int(found[1]))) for value in values]


class FakeExecutor:
    """Answers at once with `answer(request)`, or raises what it raises to whoever waits; keeps the requests."""

    def __init__(self, answer: Callable[[Request], list[Outcome]] = run_adder):
        self.answer, self.requests = answer, []

    def submit(self, request: Request) -> Future[list[Outcome]]:
        self.requests.append(request)
        future: Future[list[Outcome]] = Future()
        try:
            future.set_result(self.answer(request))
        except Exception as error:
            future.set_exception(error)
        return future

    def run(self, requests: Iterable[Request]) -> list[list[Outcome]]:
        return [self.submit(request).result() for request in requests]

    def describe(self) -> str:
        return "no sandbox: answers from a table"

    def close(self) -> None:
        pass

    def __enter__(self) -> "FakeExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
