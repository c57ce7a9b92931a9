"""From proposal to task: the executor runs it, the task type judges what came of it."""

from concurrent.futures import Future
from typing import TypeAlias

from azr_nemo.sandbox.executor import Executor, Limits, Outcome, Request
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import Calls, Proposal, Refusal, Result, Task

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

        def judge(run: Future[list[Outcome]]) -> None:
            try:
                verdict.set_result(KINDS[proposal.type].task(proposal, results(run.result())))
            except BaseException as error:  # whatever it is belongs to the one who waits, not to the executor's thread
                verdict.set_exception(error)

        self.executor.submit(Request(proposal.program, proposal.inputs, self.limits, deterministic=True)).add_done_callback(judge)
        return verdict

    def run(self, calls: list[Calls]) -> list[list[Result]]:
        """What came of calls that need not be deterministic, in order. Raises ExecutorUnavailable when the sandbox fails."""
        return [results(outcomes) for outcomes in self.executor.run(Request(call.program, call.inputs, self.limits) for call in calls)]

    def validate(self, proposals: list[Proposal]) -> list[Validated]:
        """Validates all, in parallel, and returns what came of each, in order."""
        return [pending.result() for pending in [self.submit(proposal) for proposal in proposals]]
