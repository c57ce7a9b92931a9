"""What keeps a proposer from one easy motif: refusals of blind and crowded programs, wishes in its prompt, rewards that remember shapes."""

import random

import pytest
from sample_tasks import FakeExecutor, adder, adder_task, run_adder

from azr_nemo.sandbox.executor import Limits, Outcome, Request, Status
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completion
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.selfplay.validation import Validator
from azr_nemo.settings.schema import IntrinsicConfig, RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import PromptOptions, Proposal, TaskType, Verdict
from azr_nemo.tasks.wishes import OPERATIONS, TYPES

OPTIONS = PromptOptions(style="completion", pairs=4)
DEDUCTION, ABDUCTION = TaskType.DEDUCTION, TaskType.ABDUCTION
BLIND = "def f(x):\n    return 3"
LEAVES_ITS_OUTPUT = "def f(x):\n    return abs(x)"
FAR = [f"def f(x):\n    return x{' + 1' * times}" for times in (3, 4)]  # shapes of their own


def run(request: Request) -> list[Outcome]:
    if request.program == BLIND:
        return [Outcome(Status.OK, "3")] * len(request.inputs)
    if request.program == LEAVES_ITS_OUTPUT:
        return [Outcome(Status.OK, text.lstrip("-")) for text in request.inputs]
    if request.program in FAR:
        return [Outcome(Status.OK, "9")] * len(request.inputs)
    return run_adder(request)


@pytest.fixture
def buffer(tmp_path):
    with TaskBuffer(tmp_path / "tasks.db", 100) as buffer:
        for kind in (DEDUCTION, ABDUCTION):
            buffer.add(adder_task(1, kind), 0, seed=True)
        yield buffer


def proposer(buffer: TaskBuffer, **settings: object) -> Proposer:
    config = RunConfig()
    for name, value in settings.items():
        setattr(config.selfplay, name, value)
    return Proposer(buffer, Validator(FakeExecutor(run), Limits()), OPTIONS, config, lambda text: True)


def settled(proposer: Proposer, *written: tuple[TaskType, str]) -> list[Proposed]:
    rows = []
    for kind, program in written:
        rows.append(proposer.row(kind, random.Random(1)))
        text = KINDS[kind].proposal_text(Proposal(kind, program, ("1",)), OPTIONS)
        rows[-1].row.receive(0, Completion(text, (1,), (2,), (0.0,), finished=True))
    proposer.settle(rows)
    return rows


def test_an_abduction_task_that_any_input_solves_is_refused_and_a_deduction_task_is_not(buffer):
    written = [(ABDUCTION, BLIND), (DEDUCTION, BLIND), (ABDUCTION, adder(2))]
    rows = settled(proposer(buffer, refuse_ignored_input=True), *written)
    assert [row.refusal for row in rows] == ["ignores_input", "", ""]
    assert rows[0].task is None
    assert [row.refusal for row in settled(proposer(buffer), *written)] == ["", "", ""]


def test_an_abduction_task_that_its_own_output_answers_is_refused_and_a_deduction_task_is_not(buffer):
    written = [(ABDUCTION, LEAVES_ITS_OUTPUT), (DEDUCTION, LEAVES_ITS_OUTPUT), (ABDUCTION, adder(2))]
    rows = settled(proposer(buffer, refuse_ignored_input=True, refuse_echoed_output=True), *written)
    assert [row.refusal for row in rows] == ["echoed_output", "", ""]
    assert rows[0].task is None
    assert [row.refusal for row in settled(proposer(buffer, refuse_ignored_input=True), *written)] == ["", "", ""]


def test_a_shape_that_fills_the_buffer_is_refused_within_a_batch_too(buffer):
    rows = settled(proposer(buffer, shape_cap=2), *((DEDUCTION, adder(number)) for number in (2, 3, 4)), (ABDUCTION, adder(2)))
    assert [row.refusal for row in rows] == ["", "crowded_shape", "crowded_shape", ""]  # the seed is the first of the two
    crowded, *_ = proposer(buffer).rewarded(rows[1:2], 1)
    assert (crowded.reward, crowded.outcome) == (RunConfig().reward.duplicate, "crowded_shape")


def test_what_made_many_tasks_earns_less(buffer):
    for number in (10, 11, 12):
        buffer.add(adder_task(number), 1)
    made = proposer(buffer)
    made.config.reward.intrinsic["shape_novelty"] = IntrinsicConfig(coef=1.0, max=1.0)
    made.config.reward.intrinsic_combine, made.config.reward.learnability = "multiply", "four_p_one_minus_p"
    made = Proposer(buffer, made.validator, OPTIONS, made.config, made.fits)
    rows = settled(made, (DEDUCTION, adder(50)), (DEDUCTION, FAR[0]))
    for row in rows:
        row.verdicts = (Verdict(1.0, "right"), Verdict(0.0, "wrong_value"))
    known, new = made.rewarded(rows, 1)
    assert known.reward == pytest.approx(1 / 5**0.5)  # four tasks of its shape are there
    assert new.reward == 1.0


def test_prompts_wish_for_what_was_drawn_and_induction_for_nothing(buffer):
    buffer.add(adder_task(1, TaskType.INDUCTION), 0)
    made = proposer(buffer, wishes=2)
    texts = [made.row(DEDUCTION, random.Random(seed)).row.prompt.text.full for seed in range(6)]
    for text in texts:
        assert sum(kind in text for kind in TYPES) >= 1
        assert sum(operation in text for operation in OPERATIONS) >= 2
    assert len(set(texts)) > 3
    induction = made.row(TaskType.INDUCTION, random.Random(1)).row.prompt.text.full
    assert not any(operation in induction for operation in OPERATIONS if operation not in ("zip", "enumerate", "counting"))
