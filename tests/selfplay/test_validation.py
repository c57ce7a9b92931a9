"""Proposals become tasks or refusals; a dead sandbox is neither."""

from concurrent.futures import CancelledError, Future

import pytest
from sample_tasks import FakeExecutor, adder

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Status
from azr_nemo.selfplay.validation import Validator, results
from azr_nemo.tasks.task import Proposal, Refusal, Result, Task, TaskType


def proposal(number, type=TaskType.DEDUCTION):
    return Proposal(type, adder(number), ("1",))


def test_a_program_that_runs_becomes_a_task_with_its_true_output():
    executor = FakeExecutor()
    limits = Limits(wall_s=1.5)
    assert Validator(executor, limits).submit(proposal(4)).result() == Task(TaskType.DEDUCTION, adder(4), ("1",), ("5",))
    (request,) = executor.requests
    assert request.deterministic
    assert (request.program, request.inputs, request.limits) == (adder(4), ("1",), limits)


def test_results_come_in_the_order_of_the_proposals():
    validated = Validator(FakeExecutor(), Limits()).validate(
        [proposal(3), Proposal(TaskType.ABDUCTION, "def f(x):\n    oh", ("1",)), proposal(1)]
    )
    assert [v.output if isinstance(v, Task) else v.reason for v in validated] == ["4", "error", "2"]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_every_failure_of_a_program_is_a_refusal_that_names_it(status):
    executor = FakeExecutor(lambda request: [Outcome(status, error="why")])
    refusal = Validator(executor, Limits()).submit(proposal(1)).result()
    assert isinstance(refusal, Refusal)
    assert refusal.reason == status.value


def test_a_dead_sandbox_is_raised_never_a_refusal():
    def die(request):
        raise ExecutorUnavailable("the worker is gone")

    with pytest.raises(ExecutorUnavailable, match="gone"):
        Validator(FakeExecutor(die), Limits()).validate([proposal(1)])


def test_submitting_does_not_wait_for_the_run():
    run: Future = Future()
    executor = FakeExecutor()
    executor.submit = lambda request: run
    pending = Validator(executor, Limits()).submit(proposal(1))
    assert not pending.done()
    run.set_result([Outcome(Status.OK, "2")])
    assert pending.result(timeout=1).output == "2"


def test_a_dropped_run_does_not_leave_the_waiter_hanging():
    run: Future = Future()
    executor = FakeExecutor()
    executor.submit = lambda request: run
    pending = Validator(executor, Limits()).submit(proposal(1))
    run.cancel()
    with pytest.raises(CancelledError):
        pending.result(timeout=1)


def test_outcomes_are_told_in_the_words_of_the_task_types():
    outcomes = [Outcome(Status.OK, "'a'", cpu_s=1.0), Outcome(Status.TIMEOUT, error="5 s")]
    assert results(outcomes) == [Result(True, "'a'", "ok", ""), Result(False, None, "timeout", "5 s")]
