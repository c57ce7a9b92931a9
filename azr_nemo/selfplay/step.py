"""One step of Absolute Zero (arXiv 2505.03335, Algorithm 1), as a generator that never calls a model.

It yields prompts and is sent completions; whoever drives it owns the model. The same code runs under any engine, in a test with canned
completions, and on one rank of a cluster.
"""

import random
from collections.abc import Generator
from dataclasses import dataclass

from azr_nemo.selfplay.batch import give_advantages, in_group_order, training_batch
from azr_nemo.selfplay.exchange import Attempt, Completions, PromptBatch, TrainingBatch, ask
from azr_nemo.selfplay.measure import measure
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.selfplay.solver import Solver

BASELINES = "baselines"  # the buffer's note of moving averages, by group: they are saved and restored with the tasks


@dataclass(frozen=True)
class StepResult:
    """What a step leaves: the batch to train on, its attempts in the order of their groups (the batch may leave some out), the step's metrics,
    and every attempt, those that are not trained on too: proposals, estimates, solutions."""

    batch: TrainingBatch
    attempts: list[Attempt]
    metrics: dict[str, float]
    rollouts: list[Attempt]


class SelfPlay:
    """The two roles over one buffer."""

    def __init__(self, proposer: Proposer, solver: Solver):
        self.proposer, self.solver = proposer, solver
        self.buffer, self.config = proposer.buffer, proposer.config

    def step(self, number: int) -> Generator[PromptBatch, Completions, StepResult]:
        """Step `number` (from 1). What it draws depends on the run's seed, the number and the buffer alone, so a resumed run repeats it."""
        rng = random.Random(f"{self.config.seed}/step/{number}")

        # PROPOSE: references from the buffer as it stands; the executor validates while later proposals are still being written.
        proposals = self.proposer.rows(rng, number)
        yield from ask([proposed.row for proposed in proposals], "propose")
        self.proposer.settle(proposals)

        # ESTIMATE: how often does the solver, as it is now, solve each new task?
        fresh = [proposed for proposed in proposals if proposed.fresh]
        yield from self.estimate(fresh)
        earning = [proposed for proposed in proposals if proposed.earns]
        proposed_rows = self.proposer.attempts(earning)
        self.store(fresh, number)
        for proposed, attempt in zip(earning, proposed_rows, strict=True):
            attempt.task_id = proposed.task_id
        estimated_rows = [
            attempt for p in fresh if p.estimates and p.task for attempt in self.solver.attempts(p.estimates, p.task, p.task_id, "estimate")
        ]

        # SOLVE: tasks of this step and of the buffer.
        tasks = self.solver.draw(number, rng)
        rows = [self.solver.row(stored.task, self.config.selfplay.solve_samples) for stored in tasks]
        yield from ask(rows, "solve")
        solved_rows = [a for row, stored in zip(rows, tasks, strict=True) for a in self.solver.attempts(row, stored.task, stored.id)]
        with self.buffer.transaction():
            for row, stored in zip(rows, tasks, strict=True):
                self.buffer.record(stored.id, sum(v.score == 1 for v in row.outcomes()), len(row.outcomes()))

        # LEARN: verified rewards -> advantages, by default with one baseline per (role, task type) -> one update of the one model.
        trained = list(solved_rows)
        if self.config.selfplay.known_answers:
            known = [self.solver.known(row, stored) for row, stored in zip(rows, tasks, strict=True)]
            trained += [attempt for attempt in known if attempt]
        if self.config.selfplay.train_propose:
            trained += proposed_rows
        if self.config.selfplay.reuse_estimates:
            trained += estimated_rows
        metrics = measure(proposals, proposed_rows, solved_rows, self.buffer)
        trained = in_group_order(trained)
        before = {int(group): value for group, value in self.buffer.read_note(BASELINES).items()}
        after = give_advantages(trained, self.config, before)
        if after != before:
            self.buffer.write_note(BASELINES, {str(group): value for group, value in after.items()})
        batch = training_batch(trained, self.config)
        metrics["train/rows"] = len(batch.prompt_ids)
        return StepResult(batch, trained, metrics, [*proposed_rows, *estimated_rows, *solved_rows])

    def estimate(self, fresh: list[Proposed]) -> Generator[PromptBatch, Completions, None]:
        """Samples each new task n times at the rollout temperature: never greedily, or every solve rate would be 0 or 1."""
        for proposed in fresh:
            assert proposed.task is not None
            proposed.estimates = self.solver.row(proposed.task, self.config.rollout.estimate_samples)
        yield from ask([proposed.estimates for proposed in fresh if proposed.estimates], "estimate")
        for proposed in fresh:
            assert proposed.estimates is not None
            proposed.verdicts = tuple(proposed.estimates.outcomes())

    def store(self, fresh: list[Proposed], step: int) -> None:
        """Every valid new task that `selfplay.valid_program_filter` lets through enters the buffer, with the references it came from."""
        with self.buffer.transaction():
            for proposed in fresh:
                if not self._kept(proposed.solve_rate):
                    continue
                assert proposed.task is not None
                proposed.task_id = self.buffer.add(proposed.task, step, references=proposed.lineage)
                if proposed.task_id is not None:
                    self.buffer.record(proposed.task_id, sum(v.score == 1 for v in proposed.verdicts), len(proposed.verdicts))

    def _kept(self, solve_rate: float) -> bool:
        match self.config.selfplay.valid_program_filter:
            case "non_one":
                return solve_rate < 1
            case "non_extremes":
                return 0 < solve_rate < 1
        return True
