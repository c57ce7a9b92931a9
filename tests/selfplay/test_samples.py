"""One attempt of each task type is shown, proposals as often as answers, and an answer with its task."""

import random
from collections import Counter

from sample_tasks import adder_task

from azr_nemo.selfplay.exchange import Attempt, Completion, Prompt
from azr_nemo.tasks.task import PromptText, Role, TaskType
from azr_nemo.trainer.reporting import sampled, shown


def attempt(role, kind, text="text"):
    prompt = Prompt(PromptText("ask", ""), role, kind)
    return Attempt(prompt, Completion(text, (1,), (2,), (0.0,), True), 1.0, "right", adder_task(1, kind))


ATTEMPTS = [attempt(Role.PROPOSE, kind) for kind in TaskType] + [attempt(Role.SOLVE, kind) for kind in TaskType for _ in range(20)]


def test_each_type_is_there_once_and_roles_alike():
    roles: Counter = Counter()
    for seed in range(100):
        chosen = sampled(ATTEMPTS, random.Random(seed))
        assert [a.prompt.type for a in chosen] == list(TaskType)
        roles.update(a.prompt.role for a in chosen)
    assert 100 < roles[Role.PROPOSE] < 200  # of 300, although twenty times fewer


def test_the_same_seed_chooses_the_same():
    assert [id(a) for a in sampled(ATTEMPTS, random.Random(3))] == [id(a) for a in sampled(ATTEMPTS, random.Random(3))]
    assert sampled([], random.Random(3)) == []


def test_a_proposal_is_shown_as_written_and_an_answer_under_its_task():
    assert shown(attempt(Role.PROPOSE, TaskType.DEDUCTION, "as written")) == "as written"
    answer = attempt(Role.SOLVE, TaskType.DEDUCTION, "\n2\n")
    assert answer.task is not None
    assert shown(answer).splitlines() == [
        *answer.task.program.splitlines(), f"f({answer.task.inputs[0]}) = {answer.task.outputs[0]}", "answer:", "2",
    ]  # fmt: skip
