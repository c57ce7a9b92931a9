"""The rollout engine's protocol: a data-parallel replica that samples token ids and knows nothing of tensor or pipeline parallelism.

Its weights come from the trainer's weight stream, under Hugging Face names, one full tensor at a time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class SampleRequest:
    """One prompt to be continued `samples` times. temperature 0 is greedy. `seed` fixes the samples of this request whatever else is in
    the batch: sample k draws its uniforms from (seed, first + k), so that several engines can share the samples of one prompt.

    stop, stop_token_ids: what ends a response beside the model's end tokens: it ends with the first token that is one of the ids, or after
    which its text holds one of the strings. That token stays in it, with what text of it may come after the string."""

    prompt_ids: tuple[int, ...]
    samples: int
    max_new_tokens: int
    temperature: float
    seed: int
    first: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sample:
    """token_ids: the continuation, what ends it included when `finished`. logprobs: of each of them under the sampling distribution
    (temperature applied; at temperature 0, of the untempered model). finished: ended by an end token or a stop, not by the length limit."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


class RolloutEngine(Protocol):
    def refit(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes over the trainer's weights: (Hugging Face name, full tensor) one at a time."""
        ...

    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        """Samples each request; result[i][k] is sample k of request i. `on_sample(i, k, sample)` is called as each one ends."""
        ...

    def sleep(self) -> None:
        """Called before a training step: an engine may give up what memory it can, its weights too, as a refit comes before the next
        `generate`. Those that hold little do nothing."""
        return  # without it the protocol would ask every engine for its own
