"""Rollouts for tests: one, or those of a whole step."""

from dataclasses import replace

from azr_nemo.observe.rollout_log import Rollout
from azr_nemo.tasks.task import Role, TaskType

GROUPS = [(phase, kind) for phase in ("propose", "estimate", "solve") for kind in TaskType]


def rollout(phase: str, kind: TaskType, completion: str, **changes) -> Rollout:
    role = Role.PROPOSE if phase == "propose" else Role.SOLVE
    plain = Rollout(phase, role, kind, 1, (), f"{kind.value}?", completion, "right", 0.5, 0.25, 4)
    return replace(plain, **changes)


def step_of(prompts: int = 3, answers: int = 2, text: str = "") -> list[Rollout]:
    """Of every group so many prompts, and so many answers to each."""
    return [
        rollout(phase, kind, f"{text}{phase} {k}", prompt=f"{text}{kind.value} {i}?", task=i)
        for phase, kind in GROUPS
        for i in range(prompts)
        for k in range(answers)
    ]
