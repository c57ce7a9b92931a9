"""What the self-play step and the engine say to each other: prompts out, completions in, a training batch at the end."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from azr_nemo.tasks.task import PromptText, Refusal, Role, Task, TaskType, Verdict

if TYPE_CHECKING:  # the roles play without torch, too (azr_nemo.environments)
    from torch import Tensor


def groups() -> tuple[tuple[Role, TaskType], ...]:
    """TRR++'s groups in the order of their ids: six with the three task types of the paper."""
    return tuple((role, kind) for role in Role for kind in TaskType)


@dataclass(frozen=True)
class Prompt:
    """A prompt for the model: `samples` completions are wanted, each of at most max_new_tokens tokens."""

    text: PromptText
    role: Role
    type: TaskType
    samples: int = 1
    max_new_tokens: int = 256
    temperature: float = 1.0


@dataclass(frozen=True)
class Completion:
    """One sampled continuation. text: the decoded response without special tokens and without the prompt's prefill.
    logprobs: the rollout engine's, one per response id, nan where it was not sampled. finished: ended by an end token or a stop string.
    weight_version: how many updates the weights had had that drew it, or its first token; newer: (first token, version) where later weights went on."""

    text: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    weight_version: int = 0
    newer: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Completion":
        """From its fields as JSON keeps them; what older files lack has its default."""
        ids = {name: tuple(row[name]) for name in ("prompt_ids", "response_ids", "logprobs")}
        return cls(**{**row, **ids, "newer": tuple(tuple(span) for span in row.get("newer", ()))})


@dataclass(frozen=True)
class PromptBatch:
    """What the step yields. `on_completion(i, k, completion)` is called as sample k of prompt i arrives, so that work can overlap with
    generation; the engine still sends back everything: one list of completions per prompt."""

    prompts: list[Prompt]
    phase: str  # propose | estimate | solve, or sample for several of them at once: for progress and timing
    on_completion: Callable[[int, int, Completion], None] | None = None
    shares: tuple[tuple[str, int], ...] = ()  # of several phases: how many of the prompts, in their order, are of which

    @property
    def lanes(self) -> tuple[tuple[str, int], ...]:
        """The phases in it and how many prompts each has."""
        return self.shares or ((self.phase, len(self.prompts)),)


@dataclass(frozen=True)
class TrainingBatch:
    """B rows of one update, in the order of their groups.

    prompt_ids, response_ids: B lists of token ids. rollout_logprobs: [B, T], right-padded with 0, nan where a response was not sampled.
    mask: [B, T] float, 1 on response tokens. advantages: [B, T], 0 where mask is 0. rewards: [B]. groups: [B], indices into groups().
    versions: [B] int64, how many updates the weights had had that drew the row. T is the longest response.
    """

    prompt_ids: list[tuple[int, ...]]
    response_ids: list[tuple[int, ...]]
    rollout_logprobs: "Tensor"
    mask: "Tensor"
    advantages: "Tensor"
    rewards: "Tensor"
    groups: "Tensor"
    versions: "Tensor"

    def take(self, rows: "Tensor") -> "TrainingBatch":
        """These rows alone, by their numbers (int64), in this order; T stays."""
        chosen = rows.tolist()
        return TrainingBatch(
            prompt_ids=[self.prompt_ids[row] for row in chosen],
            response_ids=[self.response_ids[row] for row in chosen],
            rollout_logprobs=self.rollout_logprobs[rows],
            mask=self.mask[rows],
            advantages=self.advantages[rows],
            rewards=self.rewards[rows],
            groups=self.groups[rows],
            versions=self.versions[rows],
        )


@dataclass(frozen=True)
class Example:
    """One supervised example of the warm start: the loss is the cross-entropy of response_ids (end token included) after prompt_ids."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


class Engine(Protocol):
    @property
    def tokenizer(self) -> Any:
        """The model's own, as transformers gives it: for prompts in its chat template."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt text, special tokens of the model's own convention included. What its template did not write is data and makes no
        special token (azr_nemo.tasks.marked)."""
        ...

    def encode_response(self, text: str) -> list[int]:
        """Token ids of a response text, the end token included and no other special token."""
        ...

    def generate(self, batch: PromptBatch, seed: int) -> list[list[Completion]]:
        """Samples with the current weights; calls batch.on_completion as completions arrive."""
        ...

    def update(self, batch: TrainingBatch, refit: bool = True) -> dict[str, float]:
        """Learns from all rows, in as many optimizer steps as configured, then refits unless told not to; returns metrics (loss, grad_norm,
        clip_fraction, ...)."""
        ...

    def supervise(self, examples: list[Example], lr: float | None = None) -> dict[str, float]:
        """One optimizer step of cross-entropy at this learning rate (None: the configured one), without a refit; returns metrics."""
        ...

    def refit(self) -> None:
        """Hands the trainer's weights to the rollout engine."""
        ...

    def weights(self) -> Iterator["tuple[str, Tensor]"]:
        """The weight stream: (Hugging Face name, full tensor), in the model's dtype."""
        ...

    def save(self, directory: Path) -> None:
        """Writes weights, optimizer and scheduler into an existing empty directory."""
        ...

    def load(self, directory: Path) -> None:
        """Takes back what `save` wrote, bit for bit, possibly at another parallel layout."""
        ...

    def close(self) -> None: ...


Completions = list[list[Completion]]


@dataclass
class SampleGroup:
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


@dataclass(frozen=True)
class StepResult:
    """What a step leaves: the batch to train on, its attempts in the order of their groups (the batch may leave some out), the step's metrics,
    and every attempt, those that are not trained on too: proposals, estimates, solutions."""

    batch: TrainingBatch
    attempts: list[Attempt]
    metrics: dict[str, float]
    rollouts: list[Attempt]


def ask(rows: list[SampleGroup], phase: str) -> Generator[PromptBatch, Completions, None]:
    """Yields the rows' prompts and hands each completion to its row, as it arrives or at the latest with the whole answer. Without rows it yields
    nothing."""
    if not rows:
        return

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
