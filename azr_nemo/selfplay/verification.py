"""From answer to verdict: the task type says what must run, the executor runs it, the task type judges.

Stored outputs never enter the jail, and no text that a model wrote is evaluated here.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import Executor, Limits, Outcome, Request
from azr_nemo.selfplay.rows import settled
from azr_nemo.selfplay.validation import results
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.literal import NotLiteral, read_literal
from azr_nemo.tasks.task import Calls, Task, TaskType, Verdict


class Verifier:
    """Grades answers. A wrong answer is a verdict; a dead sandbox is ExecutorUnavailable, raised to whoever waits for the verdict."""

    def __init__(self, executor: Executor, limits: Limits, allowed_imports: Sequence[str] = ()):
        """allowed_imports: what a program that answers an induction task may import; empty: the default list."""
        self.executor, self.limits, self.allowed_imports = executor, limits, allowed_imports

    def submit(self, task: Task, answer: str, partial: bool = False) -> Future[Verdict]:
        """Starts grading and returns at once, unless the executor's queue is full. partial: see TaskKind.judge."""
        todo = KINDS[task.type].verification(task, answer, self.allowed_imports)
        return settled(todo) if isinstance(todo, Verdict) else self.execute(task, todo, partial)

    def execute(self, task: Task, todo: Calls, partial: bool = False) -> Future[Verdict]:
        """Starts grading by these calls, whatever said that they may run."""
        verdict: Future[Verdict] = Future()
        verdict.set_running_or_notify_cancel()

        def judge(run: Future[list[Outcome]]) -> None:
            try:
                verdict.set_result(KINDS[task.type].judge(task, results(run.result()), partial))
            except BaseException as error:  # whatever it is belongs to the one who waits, not to the executor's thread
                verdict.set_exception(error)

        self.executor.submit(Request(todo.program, todo.inputs, self.limits)).add_done_callback(judge)
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
