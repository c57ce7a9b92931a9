"""Seeding: from one identity function to `selfplay.batch_size` x `data.seed_factor` valid tasks per type, written by the model itself.

The buffer is the only state: each round's tasks and the count of rounds are stored together, so a killed run goes on with the next round,
and what a round draws depends on the run's seed, the round and the buffer alone.
"""

from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from random import Random

from azr_nemo.errors import UserError
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completions, PromptBatch, ask
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.tasks import triplets
from azr_nemo.tasks.task import Task, TaskType

IDENTITY = "def f(x):\n    return x"
ZERO_INPUTS = ("'Hello World'", "7", "[3, 1, 2]", "{'left': 1, 'right': 2}", "(0.5, True)", "None")
ZERO_MESSAGE = "Whatever comes in goes out again, unchanged."


def zero_tasks() -> list[Task]:
    """What self-play starts from when there are no seed files: the paper's zero triplet, the identity function, as a task of each type."""
    triplet = Task(TaskType.DEDUCTION, IDENTITY, ZERO_INPUTS[:1], ZERO_INPUTS[:1])
    return [*both_ways(triplet), Task(TaskType.INDUCTION, IDENTITY, ZERO_INPUTS, ZERO_INPUTS, ZERO_MESSAGE)]


def both_ways(triplet: Task) -> list[Task]:
    """One program with its input and output is a deduction and an abduction task (the paper seeds both buffers with the same triplets)."""
    return [replace(triplet, type=type) for type in triplets()]


def add_seeds(buffer: TaskBuffer, tasks: list[Task]) -> int:
    """Stores tasks as seeds of step 0 and returns how many were new."""
    with buffer.transaction():
        return sum(buffer.add(task, step=0, seed=True) is not None for task in tasks)


@dataclass(frozen=True)
class SeedProgress:
    """Where seeding stands. stage: triplets, then induction. round: batches asked for so far, of `rounds`. valid: tasks per type, of
    `target`. refused: why proposals were no new tasks, over all rounds of the stage."""

    stage: str
    round: int
    rounds: int
    valid: int
    target: int
    refused: Counter[str]

    def sentence(self) -> str:
        """How far it came and what stood in the way."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.refused.most_common(5)) or "none"
        reached = f"{self.valid} of {self.target} valid tasks per type in {self.round} batches"
        return f"seeding ({self.stage}) reached {reached}; refused: {reasons}"


@dataclass
class Seeded:
    """What seeding ended with: the last progress of each stage, and sentences for the user where a target was missed."""

    stages: list[SeedProgress] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class SeedingLoop:
    """Prompts the model for seeds, in the manner of the step: `run` yields prompts and is sent completions.

    Triplets first: deduction and abduction proposals are pooled, and each valid one becomes a task of both types, as in the paper.
    Induction then describes programs of those. Everything that is valid and new is kept, also beyond the target.
    """

    def __init__(self, proposer: Proposer, on_progress: Callable[[SeedProgress], None] | None = None):
        self.proposer, self.on_progress = proposer, on_progress
        self.buffer, self.config = proposer.buffer, proposer.config

    @property
    def stages(self) -> list[tuple[str, tuple[TaskType, ...]]]:
        """Each stage with the task types that it fills."""
        induction = [("induction", (TaskType.INDUCTION,))] if TaskType.INDUCTION in self.config.selfplay.task_types else []
        return [("triplets", triplets()), *induction]

    @property
    def rounds(self) -> int:
        """Batches asked for so far, those before a kill included."""
        return sum(self.buffer.read_note(f"seeding/{stage}").get("rounds", 0) for stage in ("triplets", "induction"))

    def run(self) -> Generator[PromptBatch, Completions, Seeded]:
        """Asks for batches of `data.seed_batch` proposals until each type has its target, at most `data.seed_rounds` batches a stage, those of
        earlier attempts at this run included. A target that is missed is a warning when there is at least a batch worth of tasks, else a
        UserError that says what was refused and why."""
        add_seeds(self.buffer, zero_tasks())
        done = Seeded()
        for stage, types in self.stages:
            end = yield from self._fill(stage, types)
            done.stages.append(end)
            if end.valid < end.target:
                done.warnings.append(self._missed(end))
        return done

    def _fill(self, stage: str, types: tuple[TaskType, ...]) -> Generator[PromptBatch, Completions, SeedProgress]:
        size = self.config.data.seed_batch
        progress = self._progress(stage, types)
        while progress.valid < progress.target and progress.round < progress.rounds:
            rng = Random(f"{self.config.seed}/seeding/{stage}/{progress.round}")
            alike = self.config.selfplay.propose_samples
            asked = [types[i % len(types)] for i in range(-(-size // alike))]
            proposals = [proposed for type in asked for proposed in self.proposer.alike(type, rng, step=0)]
            yield from ask([proposed.row for proposed in proposals], "seed")
            self.proposer.settle(proposals)
            self._store(proposals, progress)
            progress = self._progress(stage, types)
            if self.on_progress:
                self.on_progress(progress)
        return progress

    def _progress(self, stage: str, types: tuple[TaskType, ...]) -> SeedProgress:
        note = self.buffer.read_note(f"seeding/{stage}")
        return SeedProgress(
            stage=stage,
            round=note.get("rounds", 0),
            rounds=self.config.data.seed_rounds,
            valid=min(self.buffer.count(type) for type in types),
            target=self.config.selfplay.batch_size * self.config.data.seed_factor,
            refused=Counter(note.get("refused", {})),
        )

    def _store(self, proposals: list[Proposed], before: SeedProgress) -> None:
        """A round's tasks and its count in one transaction: a kill loses or keeps the whole round."""
        refused = Counter(before.refused)
        with self.buffer.transaction():
            for proposed in proposals:
                if not proposed.fresh or proposed.task is None:
                    refused[proposed.refusal] += 1
                    continue
                references = proposed.lineage
                tasks = both_ways(proposed.task) if proposed.type in triplets() else [proposed.task]
                tasks = [task for task in tasks if not (proposed.no_abduction and task.type is TaskType.ABDUCTION)]
                ids = [self.buffer.add(task, step=0, seed=True, references=references) for task in tasks]
                if ids == [None] * len(ids):  # an earlier one of this round became the same task of the other type
                    refused["duplicate"] += 1
            self.buffer.write_note(f"seeding/{before.stage}", {"rounds": before.round + 1, "refused": dict(refused)})

    def _missed(self, end: SeedProgress) -> str:
        """The warning; raises instead when there are fewer tasks than a step's solver draws of a type."""
        settings = self.config.selfplay
        if end.valid >= settings.batch_size // settings.solve_samples:
            return f"{end.sentence()}. Self-play goes on with what there is"
        raise UserError(
            f"{end.sentence()}. Raise data.seed_rounds, lower data.seed_factor, name data.seed_files, or start from a model that can write "
            "small programs (warmup.steps)"
        )
