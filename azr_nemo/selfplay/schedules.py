"""Which phases of a step share a batch: a function for each value of `selfplay.schedule`; the paper's own order, `sequential`, is in step.py. A batch
ends with its longest response, so a step has as many long tails as it has batches. docs/algorithm.md says row by row what each changes."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

from azr_nemo.selfplay.exchange import Completion, Completions, PromptBatch, StepResult
from azr_nemo.selfplay.step import Phase, SelfPlay, sequential


def merged(play: SelfPlay, number: int) -> Phase[StepResult]:
    """Solver's tasks are drawn from the buffer as it stood before the step, so nothing waits for them. Two batches, and no row is older."""
    rng = play.rng(number)
    proposals, solved = yield from together(play.propose(number, rng), play.solve(number, rng))
    estimated = yield from play.estimate(number, proposals)
    return play.learn(number, proposals, estimated, solved)


def pipelined(play: SelfPlay, number: int) -> Phase[StepResult]:
    """What the step before has proposed is estimated while the solver solves and the next proposals are written. One batch; proposals are one
    update older than the weights that learn from them, estimates and answers are not."""
    proposals = play.ahead.take(number)
    if proposals is None:  # the first step of a run
        proposals = yield from play.propose(number, play.rng(number, "propose"))
    estimated, solved, ahead = yield from together(
        play.estimate(number, proposals),
        play.solve(number, play.rng(number, "solve")),
        play.propose(number + 1, play.rng(number + 1, "propose")),
    )
    play.ahead.put(number + 1, ahead)
    return play.learn(number, proposals, estimated, solved)


SCHEDULES: dict[str, Callable[[SelfPlay, int], Phase[StepResult]]] = {
    "sequential": sequential,
    "merged": merged,
    "pipelined": pipelined,
}
DRAWS_FIRST = ("merged", "pipelined")  # the solver's tasks, before this step's proposals are tasks


def together(*phases: Generator[PromptBatch, Completions, Any]) -> Generator[PromptBatch, Completions, list[Any]]:
    """Runs generators side by side and returns their results, in their order: what they ask for at the same time is one batch. When its answer
    is there they go on one after another, in this order too."""
    results: list[Any] = [None] * len(phases)
    asked: dict[int, PromptBatch] = {}

    def go_on(place: int, answer: Completions | None) -> None:
        try:
            asked[place] = next(phases[place]) if answer is None else phases[place].send(answer)
        except StopIteration as stop:
            results[place] = stop.value

    for place in range(len(phases)):
        go_on(place, None)
    while asked:
        answered, asked = asked, {}
        completions = yield joined(list(answered.values()))
        for place, batch in answered.items():
            go_on(place, completions[: len(batch.prompts)])
            completions = completions[len(batch.prompts) :]
    return results


def joined(batches: Sequence[PromptBatch]) -> PromptBatch:
    """One batch of all prompts, in this order; each completion is announced to the batch that asked for it. A single batch stays as it is."""
    if len(batches) == 1:
        return batches[0]
    owners = [(batch, index) for batch in batches for index in range(len(batch.prompts))]

    def arrived(place: int, sample: int, completion: Completion) -> None:
        batch, index = owners[place]
        if batch.on_completion:
            batch.on_completion(index, sample, completion)

    lanes = tuple(lane for batch in batches for lane in batch.lanes)
    return PromptBatch([prompt for batch in batches for prompt in batch.prompts], "sample", arrived, lanes)
