"""Keeps a few rollouts of every step in full, so that one can read what the model wrote and what it got for it."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from azr_nemo.observe.jsonl import JsonlLog
from azr_nemo.tasks.task import Role, TaskType


@dataclass(frozen=True)
class Rollout:
    """One trained row. prompt: what the model was shown, prefill included. outcome: the slug of the verdict or refusal.
    advantage: the mean over the response's tokens."""

    role: Role
    type: TaskType
    prompt: str
    completion: str
    outcome: str
    reward: float
    advantage: float


class RolloutLog:
    """Writes `run_dir/rollouts.jsonl`: `per_step` rollouts of each step, one line {"step", **Rollout} each; 0 writes none."""

    def __init__(self, run_dir: Path, per_step: int) -> None:
        """Raises UserError when the run directory cannot be written."""
        self.per_step = per_step
        self._log = JsonlLog(run_dir / "rollouts.jsonl")

    def write(self, step: int, rollouts: Sequence[Rollout], rng: random.Random) -> list[Rollout]:
        """Appends this step's sample and returns it. The same rollouts, step and state of rng give the same choice."""
        chosen = choose(rollouts, self.per_step, rng)
        self._log.append([{"step": step, **asdict(rollout)} for rollout in chosen])
        return chosen

    def rewind(self, step: int) -> None:
        """Drops the rollouts of steps after `step`; -1 drops all."""
        self._log.rewind(step)

    def close(self) -> None:
        self._log.close()


def choose(rollouts: Sequence[Rollout], count: int, rng: random.Random) -> list[Rollout]:
    """At most `count` rollouts, spread as evenly over the (role, task type) groups as they allow, in their original order."""
    groups: defaultdict[tuple[Role, TaskType], list[int]] = defaultdict(list)
    for index, rollout in enumerate(rollouts):
        groups[rollout.role, rollout.type].append(index)
    queues = [rng.sample(members, len(members)) for members in groups.values()]
    rng.shuffle(queues)  # fewer places than groups: every group still has its turn over the steps
    # The n-th of every group comes before the (n+1)-th of any.
    order = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    return [rollouts[index] for index in sorted(order[:count])]
