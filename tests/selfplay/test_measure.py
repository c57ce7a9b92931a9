"""What a step measures."""

import pytest
from metrics_page import unlisted
from sample_tasks import adder_task
from test_step import configured, drive, self_play

from azr_nemo.observe.overview import MEANS, overview
from azr_nemo.rewards.intrinsic.registry import BUILT_IN
from azr_nemo.selfplay.exchange import Attempt, Completion, Prompt
from azr_nemo.selfplay.measure import answers_by_echo
from azr_nemo.settings.schema import IntrinsicConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import PromptOptions, Role, TaskType


def measured(tmp_path):
    config = configured()
    config.reward.intrinsic |= {name: IntrinsicConfig(coef=0.1) for name in BUILT_IN}
    result, _ = drive(self_play(tmp_path, config))
    return result.metrics


def test_each_metric_of_a_step_with_every_reward_is_on_the_page(tmp_path):
    metrics = measured(tmp_path)
    assert {name.split("/")[0] for name in metrics} == {"propose", "solve", "buffer", "intrinsic", "response", "refused", "train"}
    assert unlisted({**metrics, **overview(metrics)}) == []


def test_a_step_that_measures_all_gives_the_whole_overview(tmp_path):
    assert set(overview(measured(tmp_path))) == {*(f"overview/{name}" for name in MEANS), "overview/buffer"}


def test_proposals_that_repeat_one_another_are_one_program(tmp_path):
    """Of the four proposals of each type one is new, one is known, and two are no tasks."""
    metrics = measured(tmp_path)
    for kind in (TaskType.DEDUCTION, TaskType.ABDUCTION):
        assert metrics[f"propose/{kind}/distinct"] == 1.0
        assert metrics[f"propose/{kind}/new"] == 0.5


@pytest.mark.parametrize(("answer", "echo"), [("output", True), ("input", False), (None, False)])
@pytest.mark.parametrize("style", ["r1", "completion", "code"])
def test_an_answer_that_gives_the_output_back_is_an_echo(style, answer, echo):
    task, kind, options = adder_task(2, TaskType.ABDUCTION), KINDS[TaskType.ABDUCTION], PromptOptions(style=style)
    text = kind.solve_prompt(task, options)
    said = kind.answer_text(getattr(task, answer), options) if answer else "no answer at all"
    prompt = Prompt(text, Role.SOLVE, TaskType.ABDUCTION, 1, 16, 1.0)
    attempt = Attempt(prompt, Completion(said, (1,), (2,), (0.0,), finished=True), 0.0, "right", task)
    assert answers_by_echo(attempt, options) is echo
