"""One row of self-play: a prompt, what the model answered, and what came of it."""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field

from azr_nemo.selfplay.exchange import Completion, Prompt, PromptBatch
from azr_nemo.tasks.task import Refusal, Task, Verdict

Completions = list[list[Completion]]


@dataclass
class Row:
    """A prompt and its samples. `read(completion)` turns each sample, as it arrives, into a pending outcome of type T."""

    prompt: Prompt
    read: Callable[[Completion], Future]
    completions: dict[int, Completion] = field(default_factory=dict)
    pending: dict[int, Future] = field(default_factory=dict)

    def receive(self, sample: int, completion: Completion) -> None:
        """Takes sample k once; the executor works on it while later ones are still being generated."""
        if sample not in self.completions:
            self.completions[sample] = completion
            self.pending[sample] = self.read(completion)

    def outcomes(self) -> list:
        """The outcomes in the order of the samples. Raises ExecutorUnavailable when the sandbox died."""
        return [self.pending[k].result() for k in sorted(self.pending)]


@dataclass
class Attempt:
    """One completion with its reward: what is trained on and what is logged. outcome: a short slug."""

    prompt: Prompt
    completion: Completion
    reward: float
    outcome: str
    task: Task | None = None
    references: tuple[int, ...] = ()
    advantage: float | None = None  # of each token of the response; None for what was not compared with others, as it is not trained on
    phase: str = "solve"  # propose | estimate | solve
    task_id: int | None = None  # of the task in the buffer: the one that a proposal became, or that was answered


def ask(rows: list[Row], phase: str) -> Generator[PromptBatch, Completions, None]:
    """Yields the rows' prompts and hands each completion to its row, as it arrives or at the latest with the whole answer."""

    def arrived(row: int, sample: int, completion: Completion) -> None:
        rows[row].receive(sample, completion)

    answer = yield PromptBatch([row.prompt for row in rows], phase, arrived)
    for row, samples in zip(rows, answer, strict=True):
        for k, completion in enumerate(samples):
            row.receive(k, completion)


def settled(value: Verdict | Refusal | Task) -> Future:
    """A future that already holds its result: for what needs no execution."""
    future: Future = Future()
    future.set_result(value)
    return future
