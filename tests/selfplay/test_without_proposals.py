"""A step whose proposer writes nothing still solves, learns and measures: the control that has the seeds alone."""

import random

from sample_tasks import FakeExecutor, adder_task

from azr_nemo.sandbox.executor import Limits
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completion
from azr_nemo.selfplay.proposer import Proposer
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.selfplay.validation import Validator, Verifier
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import PromptOptions, TaskType

OPTIONS = PromptOptions(style="completion")


class Silent(Proposer):
    def rows(self, rng: random.Random, step: int) -> list:
        return []


def test_a_step_without_proposals_asks_for_solutions_alone(tmp_path):
    config = RunConfig()
    config.selfplay.batch_size, config.selfplay.task_types = 4, ["deduction"]
    with TaskBuffer(tmp_path / "tasks.db", 100) as buffer:
        for number in range(4):
            buffer.add(adder_task(number), 0, seed=True)
        proposer = Silent(buffer, Validator(FakeExecutor(), Limits()), OPTIONS, config, lambda text: True)
        solver = Solver(buffer, Verifier(FakeExecutor(), Limits()), OPTIONS, config, lambda text: True, list)
        step = SelfPlay(proposer, solver).step(1)
        batch = next(step)
        assert batch.phase == "solve"
        answers = [KINDS[TaskType.DEDUCTION].answer_text(text, OPTIONS) for text in ("1", "999", "1", "no")]
        try:
            step.send([[Completion(text, (1,), (2, 3), (0.0, 0.0), finished=True)] for text in answers])
        except StopIteration as stop:
            result = stop.value
    assert len(result.batch.prompt_ids) == 4
    assert "solve/deduction/accuracy" in result.metrics
    assert not any(name.startswith("propose/deduction/valid") for name in result.metrics)
