"""While held-out accuracy is measured, the programs that it may ask about come neither from the proposer nor from a seed file."""

import json
import random

import pytest
from sample_tasks import FakeExecutor, adder
from test_step import completion, configured, self_play, solutions

from azr_nemo.sandbox.executor import Limits
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completion
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.selfplay.seed_files import load_seeds
from azr_nemo.selfplay.validation import Validator
from azr_nemo.settings.schema import RunConfig, SelfPlayConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.program import is_held_out
from azr_nemo.tasks.task import PromptOptions, Proposal, TaskType, Verdict

OPTIONS = PromptOptions(style="completion", pairs=4)
HELD_OUT = next(number for number in range(100) if is_held_out(adder(number)))
SHOWN = next(number for number in range(100) if not is_held_out(adder(number)))
NEW = next(number for number in range(100, 200) if not is_held_out(adder(number)))


def settled(folder, items: int) -> tuple[Proposer, list[Proposed]]:
    """Two deduction proposals after they were settled, the first of a held-out program, and their proposer."""
    config = RunConfig()
    config.eval.items = items
    buffer = TaskBuffer(folder / "tasks.db", 100)
    proposer = Proposer(buffer, Validator(FakeExecutor(), Limits()), OPTIONS, config, lambda text: True)
    proposals = [proposer.row(TaskType.DEDUCTION, random.Random(1)) for _ in range(2)]
    for proposed, number in zip(proposals, (HELD_OUT, SHOWN), strict=True):
        text = KINDS[TaskType.DEDUCTION].proposal_text(Proposal(TaskType.DEDUCTION, adder(number), ("1",)), OPTIONS)
        proposed.row.receive(0, Completion(text, (1,), (2,), (-0.5,), True))
    proposer.settle(proposals)
    return proposer, proposals


def test_a_held_out_proposal_is_no_task_and_is_not_trained_on(tmp_path):
    proposer, proposals = settled(tmp_path, items=5)
    assert [(proposed.refusal, proposed.fresh, proposed.earns) for proposed in proposals] == [("held_out", False, False), ("", True, True)]
    proposals[1].verdicts = (Verdict(1.0, "right"), Verdict(0.0, "wrong"))
    (attempt,) = proposer.rewarded(proposals, 1)
    assert attempt.task is proposals[1].task


def test_a_step_with_a_held_out_proposal_goes_on_without_it(tmp_path):
    config = configured(task_types=["deduction"])
    config.eval.items = 5
    play = self_play(tmp_path / "run", config)
    step = play.step(1)
    next(step)
    texts = [
        KINDS[TaskType.DEDUCTION].proposal_text(Proposal(TaskType.DEDUCTION, adder(n), ("1",)), OPTIONS) for n in (HELD_OUT, NEW, 1, 1)
    ]
    estimate = step.send([[completion(text, row)] for row, text in enumerate(texts)])
    solve = step.send(solutions(estimate))
    with pytest.raises(StopIteration) as stop:
        step.send(solutions(solve))
    proposed = [a for a in stop.value.value.rollouts if a.phase == "propose"]
    assert [a.outcome for a in proposed] == ["solve_rate=0.50", "duplicate", "duplicate"]
    assert [a.task_id is not None for a in proposed] == [True, False, False]
    assert play.buffer.get(proposed[0].task_id).task.program == adder(NEW)
    assert stop.value.value.metrics["refused/held_out"] == 1


def test_without_held_out_evaluation_every_program_is_welcome(tmp_path):
    assert [proposed.refusal for proposed in settled(tmp_path, items=0)[1]] == ["", ""]


@pytest.mark.parametrize(("hold_out", "accepted"), [(True, 1), (False, 2)])
def test_seed_files_leave_held_out_programs_out(tmp_path, hold_out, accepted):
    rows = [{"snippet": adder(n), "input": "1", "output": str(1 + n), "imports": []} for n in (HELD_OUT, SHOWN)]
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with TaskBuffer(tmp_path / "tasks.db", 100) as buffer:
        report = load_seeds([path], buffer, FakeExecutor(), SelfPlayConfig().imports, Limits(), 10, hold_out=hold_out)
    assert report.counts["s.jsonl", TaskType.DEDUCTION].accepted == accepted
    assert [row.reason for row in report.refused] == (["held_out"] if hold_out else [])


def test_layout_and_comments_do_not_make_another_program():
    assert is_held_out(adder(HELD_OUT).replace("    ", "\t") + "  # other")
