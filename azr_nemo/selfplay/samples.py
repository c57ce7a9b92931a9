"""A few attempts of a step to show: tasks as they were proposed, and answers with the task that they answer."""

import random
from collections.abc import Sequence

from azr_nemo.selfplay.rows import Attempt
from azr_nemo.tasks.task import Role, TaskType


def sampled(attempts: Sequence[Attempt], rng: random.Random) -> list[Attempt]:
    """One attempt of each task type that has any, of either role: roles are drawn first, so the many answers do not crowd the proposals out."""
    chosen = []
    for kind in TaskType:
        by_role = {role: [a for a in attempts if a.prompt.type is kind and a.prompt.role is role] for role in Role}
        if roles := [role for role, found in by_role.items() if found]:
            chosen.append(rng.choice(by_role[rng.choice(roles)]))
    return chosen


def shown(attempt: Attempt) -> str:
    """What the model wrote; an answer after the program, inputs and outputs that it was asked about."""
    task = attempt.task
    if attempt.prompt.role is Role.PROPOSE or task is None:
        return attempt.completion.text
    pairs = [f"f({given}) = {output}" for given, output in zip(task.inputs, task.outputs, strict=True)]
    return "\n".join([task.program, *pairs, "answer:", attempt.completion.text.strip("\n")])
