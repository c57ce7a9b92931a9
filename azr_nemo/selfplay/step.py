"""One step of Absolute Zero (arXiv 2505.03335, Algorithm 1), as a generator that never calls a model.

It yields prompts and is sent completions; whoever drives it owns the model. The same code runs under any engine, in a test with canned
completions, and on one rank of a cluster. Phases in another order, or in one batch, are in schedules.py.
"""

import random
from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

from azr_nemo.selfplay.batch import Row, give_advantages, in_group_order, training_batch
from azr_nemo.selfplay.buffer import StoredTask
from azr_nemo.selfplay.exchange import Attempt, Completions, PromptBatch, SampleGroup, StepResult, ask
from azr_nemo.selfplay.in_flight import Ahead
from azr_nemo.selfplay.measure import measure
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.selfplay.replay import Replay
from azr_nemo.selfplay.solver import Solved, Solver

T = TypeVar("T")
Phase: TypeAlias = Generator[PromptBatch, Completions, T]
Estimated: TypeAlias = tuple[list[Attempt], list[Attempt]]  # of the proposers, of the estimates
BASELINES = "baselines"  # the buffer's note of moving averages, by group: they are saved and restored with the tasks


class SelfPlay:
    """The two roles over one buffer."""

    def __init__(self, proposer: Proposer, solver: Solver, schedule: "Callable[[SelfPlay, int], Phase[StepResult]] | None" = None):
        self.proposer, self.solver, self.schedule = proposer, solver, schedule or sequential
        self.buffer, self.config, self.ahead = proposer.buffer, proposer.config, Ahead(proposer)
        self.replay = Replay(self.buffer, self.config.selfplay.replay)

    def step(self, number: int) -> Phase[StepResult]:
        """Step `number` (from 1). What it draws depends on the run's seed, the number and the buffer alone, so a resumed run repeats it."""
        return self.schedule(self, number)

    def rng(self, number: int, phase: str = "") -> random.Random:
        return random.Random(f"{self.config.seed}/step/{number}{phase and '/'}{phase}")

    def propose(self, number: int, rng: random.Random) -> Phase[list[Proposed]]:
        """PROPOSE: references from the buffer as it stands; the executor validates while later proposals are still being written."""
        proposals = self.proposer.rows(rng, number)
        yield from ask([proposed.row for proposed in proposals], "propose")
        return proposals

    def estimate(self, number: int, proposals: list[Proposed]) -> Phase[Estimated]:
        """ESTIMATE: how often does the solver, as it is now, solve each new task? n samples of each at the rollout temperature: never greedily, or
        every solve rate would be 0 or 1. The proposer is rewarded and the tasks enter the buffer; attempts of proposer and estimates."""
        self.proposer.settle(proposals)
        fresh = [proposed for proposed in proposals if proposed.fresh]
        for proposed in fresh:
            proposed.estimates = self.solver.row(proposed.known_task, self.config.rollout.estimate_samples)
        if fresh:
            yield from ask([proposed.estimates for proposed in fresh if proposed.estimates], "estimate")
        proposed_rows = self.proposer.rewarded(proposals, number)
        estimated_rows = [a for p in fresh if p.estimates for a in self.solver.attempts(p.estimates, p.known_task, p.task_id, "estimate")]
        return proposed_rows, estimated_rows

    def solve(self, number: int, rng: random.Random) -> Phase[Solved]:
        """SOLVE: tasks of the buffer, by `selfplay.solve_from` those of this step first. In so many further rounds as `selfplay.dynamic_sampling` says
        others take the places of those that teach nothing, as all their answers earned the same (DAPO, arXiv 2503.14476)."""
        solved: list[tuple[SampleGroup, StoredTask]] = []
        for _ in range(1 + self.config.selfplay.dynamic_sampling):
            tasks = self.solver.draw(number, rng, solved)
            rows = [self.solver.row(s.task, self.config.selfplay.solve_samples, wording=self.solver.wording(rng)) for s in tasks]
            yield from ask(rows, "solve")
            solved += zip(rows, tasks, strict=True)
        self.solver.record(solved)
        return solved

    def learn(self, number: int, proposals: list[Proposed], estimated: Estimated, solved: Solved) -> StepResult:
        """LEARN: verified rewards -> advantages, by default with one baseline per (role, task type) -> one update of the one model."""
        settings, (proposed_rows, estimated_rows) = self.config.selfplay, estimated
        solved_rows = [attempt for row, stored in solved for attempt in self.solver.attempts(row, stored.task, stored.id)]
        trained = list(solved_rows)
        if settings.known_answers:
            trained += [known for row, stored in solved if (known := self.solver.known(row, stored))]
        if settings.train_propose:
            trained += proposed_rows
        if settings.reuse_estimates:
            trained += estimated_rows
        metrics = measure(proposals, proposed_rows, solved_rows, self.buffer, self.solver.options, self.solver.is_trained)
        trained = in_group_order(self.solver.trained(trained))
        before = {int(group): value for group, value in self.buffer.read_note(BASELINES).items()}
        after = give_advantages(trained, self.config, before)
        if after != before:
            self.buffer.write_note(BASELINES, {str(group): value for group, value in after.items()})
        rows, again = [*map(Row.of, trained)], self.replay.rows(number)
        self.replay.keep(number, rows)
        batch = training_batch(sorted([*rows, *again], key=lambda row: row.group), self.config)
        metrics["train/rows"] = len(batch.prompt_ids)
        if self.replay.steps:
            metrics["train/replayed"] = len(again)
        return StepResult(batch, trained, metrics, [*proposed_rows, *estimated_rows, *solved_rows])


def sequential(play: SelfPlay, number: int) -> Phase[StepResult]:
    """The paper's order: what was proposed in this step is estimated, and may be solved in it."""
    rng = play.rng(number)
    proposals = yield from play.propose(number, rng)
    estimated = yield from play.estimate(number, proposals)
    solved = yield from play.solve(number, rng)
    return play.learn(number, proposals, estimated, solved)
