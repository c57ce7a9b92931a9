"""Held-out accuracy: greedy answers to generated tasks whose programs no warm start, seed or grammar draw of training contains."""

from collections.abc import Generator
from random import Random

from azr_nemo.evaluation.statistics import wilson
from azr_nemo.selfplay.exchange import PromptBatch
from azr_nemo.selfplay.rows import Completions, ask
from azr_nemo.selfplay.solver import Solver
from azr_nemo.tasks.task import Task, TaskType
from azr_nemo.warmup.generator import one_pair


class HeldOut:
    """A fixed set of tasks: one task of each type for every held-out program. tasks: induction tasks of `generate_tasks(held_out=True)`."""

    def __init__(self, tasks: list[Task], solver: Solver):
        rng = Random("held-out")
        self.solver = solver
        self.tasks = [
            task if kind is TaskType.INDUCTION else one_pair(task, kind, rng.randrange(len(task.inputs)))
            for task in tasks
            for kind in TaskType
        ]

    def evaluate(self) -> Generator[PromptBatch, Completions, dict[str, float]]:
        """Yields the prompts like the step does; returns `eval/<type>` with `_low` and `_high`, a 95% Wilson interval."""
        rows = [self.solver.row(task, samples=1, temperature=0.0) for task in self.tasks]
        yield from ask(rows, "evaluate")
        metrics: dict[str, float] = {}
        for kind in TaskType:
            scores = [row.outcomes()[0].score == 1 for row, task in zip(rows, self.tasks, strict=True) if task.type is kind]
            low, high = wilson(sum(scores), len(scores))
            metrics |= {f"eval/{kind}": sum(scores) / len(scores), f"eval/{kind}_low": low, f"eval/{kind}_high": high}
        return metrics
