"""From proposal to task: the executor runs it, the task type judges what came of it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import Executor, Limits, Outcome, Request
from azr_nemo.selfplay.exchange import settled
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.other_inputs import answered_by_its_output, echoes, ignores_input, variations
from azr_nemo.tasks.parsing import NotLiteral, read_literal
from azr_nemo.tasks.task import Calls, Proposal, Refusal, Result, Task, TaskType, Verdict

Validated: TypeAlias = Task | Refusal


def results(outcomes: list[Outcome]) -> list[Result]:
    """What the executor says, in the words of the task types (which know no executor)."""
    return [Result(outcome.ok, outcome.value, outcome.status.value, outcome.error or "") for outcome in outcomes]


class Validator:
    """Runs proposals deterministically (twice in one worker, once in another with a different hash seed) and keeps what is a task.

    A program that fails is a Refusal; a sandbox that fails is ExecutorUnavailable, raised to whoever waits for the result.
    """

    def __init__(self, executor: Executor, limits: Limits):
        self.executor, self.limits = executor, limits

    def submit(self, proposal: Proposal) -> Future[Validated]:
        """Starts the validation and returns at once, unless the executor's queue is full. Waiting is bounded by the executor's own limits.

        The proposal must have passed the static checks (`parse_proposal` or `program.check`). Cancelling the future cannot stop the run.
        """
        verdict: Future[Validated] = Future()
        verdict.set_running_or_notify_cancel()

        def finish(run: Future[list[Outcome]]) -> None:
            try:
                verdict.set_result(KINDS[proposal.type].task(proposal, results(run.result())))
            except BaseException as error:  # whatever it is belongs to the one who waits, not to the executor's thread
                verdict.set_exception(error)

        self.executor.submit(Request(proposal.program, proposal.inputs, self.limits, deterministic=True)).add_done_callback(finish)
        return verdict

    def run(self, calls: list[Calls]) -> list[list[Result]]:
        """What came of calls that need not be deterministic, in order. Raises ExecutorUnavailable when the sandbox fails."""
        return [results(outcomes) for outcomes in self.executor.run(Request(call.program, call.inputs, self.limits) for call in calls)]

    def validate(self, proposals: list[Proposal]) -> list[Validated]:
        """Validates all, in parallel, and returns what came of each, in order."""
        return [pending.result() for pending in [self.submit(proposal) for proposal in proposals]]


# Why a task asks nothing when its input is asked for: the calls that tell, and what they are to give.
IDLE: dict[str, tuple[Callable[[Task], Calls], Callable[[Task, list[Result]], bool]]] = {
    "ignores_input": (variations, ignores_input),
    "echoed_output": (echoes, answered_by_its_output),
}


def no_abduction(validator: Validator, results: list[Validated], reasons: Collection[str]) -> list[str]:
    """Of each deduction and abduction task the first of these reasons (of `IDLE`) for which its program is no abduction task; empty for whatever else."""
    found = [""] * len(results)
    for reason in reasons:
        calls, holds = IDLE[reason]
        asked = {
            place: (task, made)
            for place, task in enumerate(results)
            if not found[place] and isinstance(task, Task) and task.type is not TaskType.INDUCTION and (made := calls(task)).inputs
        }
        answers = validator.run([made for _, made in asked.values()])
        for (place, (task, _)), answer in zip(asked.items(), answers, strict=True):
            found[place] = reason if holds(task, answer) else ""
    return found


class Verifier:
    """Grades answers. A wrong answer is a verdict; a dead sandbox is ExecutorUnavailable, raised to whoever waits for the verdict."""

    def __init__(self, executor: Executor, limits: Limits, allowed_imports: Sequence[str] = ()):
        """allowed_imports: what a program that answers an induction task may import; empty: the default list."""
        self.executor, self.limits, self.allowed_imports = executor, limits, allowed_imports

    def submit(self, task: Task, answer: str, partial: bool = False) -> Future[Verdict]:
        """Starts grading and returns at once, unless the executor's queue is full. partial: see TaskKind.score."""
        todo = KINDS[task.type].verification(task, answer, self.allowed_imports)
        return settled(todo) if isinstance(todo, Verdict) else self.execute(task, todo, partial)

    def execute(self, task: Task, todo: Calls, partial: bool = False) -> Future[Verdict]:
        """Starts grading by these calls, whatever said that they may run."""
        verdict: Future[Verdict] = Future()
        verdict.set_running_or_notify_cancel()

        def finish(run: Future[list[Outcome]]) -> None:
            try:
                verdict.set_result(KINDS[task.type].score(task, results(run.result()), partial))
            except BaseException as error:  # whatever it is belongs to the one who waits, not to the executor's thread
                verdict.set_exception(error)

        self.executor.submit(Request(todo.program, todo.inputs, self.limits)).add_done_callback(finish)
        return verdict

    def grade(self, answers: Iterable[tuple[Task, str]], partial: bool = False) -> list[Verdict]:
        """The verdicts of many (task, answer) pairs, in order."""
        return [pending.result() for pending in [self.submit(task, answer, partial) for task, answer in answers]]


def grade_rows(rows: Iterable[tuple[str, dict[str, Any]]], verifier: Verifier) -> Iterator[dict[str, Any]]:
    """Grades rows `{"task_type", "program", "input"|"inputs", "output"|"outputs", "answer"}`, each given with its place (`file:line`).

    Yields `{"score": 0 or 1, "reason": ...}` in order. Induction answers are judged on the hidden half of the pairs, as in training.
    Raises UserError with the place of a row that is no task.
    """
    pending = [verifier.submit(*_read_row(place, row)) for place, row in rows]
    for verdict in pending:
        graded = verdict.result()
        yield {"score": int(graded.score), "reason": graded.reason}


def _read_row(place: str, row: dict[str, Any]) -> tuple[Task, str]:
    try:
        kind = TaskType(row["task_type"])
        inputs = tuple(row["inputs"] if "inputs" in row else [row["input"]])
        outputs = tuple(row["outputs"] if "outputs" in row else [row["output"]])
        if any(isinstance(row.get(name, []), str) for name in ("inputs", "outputs")):
            raise TypeError("inputs and outputs, which are lists of strings (a single one is called input, output)")
        task = Task(kind, row["program"], inputs, outputs)
        texts = [task.program, row["answer"], *inputs, *outputs]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: a row needs task_type, program, input(s), output(s) and answer; this one fails at {error}") from None
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{place}: program, inputs, outputs and answer must be strings; outputs are written as Python literals")
    if len(inputs) != len(outputs) or not inputs or (len(inputs) > 1 and kind is not TaskType.INDUCTION):
        raise UserError(f"{place}: {len(inputs)} inputs and {len(outputs)} outputs do not make a {kind} task")
    for output in outputs:
        try:
            read_literal(output)
        except NotLiteral:
            raise UserError(f"{place}: the output {output[:60]!r} is not a Python literal") from None
    return task, row["answer"]
