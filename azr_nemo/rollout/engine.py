"""The rollout engine's protocol: a data-parallel replica that samples token ids and knows nothing of tensor or pipeline parallelism.

Its weights come from the trainer's weight stream, under Hugging Face names, one full tensor at a time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from azr_nemo.errors import UserError


@dataclass(frozen=True)
class SampleRequest:
    """One prompt to be continued `samples` times. temperature 0 is greedy. `seed` fixes the samples of this request whatever else is in
    the batch: sample k draws its uniforms from (seed, first + k), so that several engines can share the samples of one prompt.

    stop, stop_token_ids: what ends a response beside the model's end tokens: it ends with the first token that is one of the ids, or after
    which its text holds one of the strings. That token stays in it, with what text of it may come after the string.

    top_p, top_k, min_p: only the likeliest tokens whose probabilities reach top_p together, only the top_k likeliest, only those with min_p of
    the likeliest one's probability, by the tempered distribution; 1, 0 and 0 leave every token in."""

    prompt_ids: tuple[int, ...]
    samples: int
    max_new_tokens: int
    temperature: float
    seed: int
    first: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Sample:
    """token_ids: the continuation, what ends it included when `finished`. logprobs: of each of them under the sampling distribution
    (temperature and then top_k, top_p and min_p applied; at temperature 0, of the untempered model). finished: ended by an end token or a stop,
    not by the length limit. weight_version: of the refit whose weights drew it, or its first token where others were handed over meanwhile
    (`rollout.update_in_flight`); newer: those, as (first token, version)."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    weight_version: int = 0
    newer: tuple[tuple[int, int], ...] = ()


def check_request(request: SampleRequest) -> None:
    """Raises ValueError for a request that no engine can answer."""
    if not request.prompt_ids or request.samples < 1 or request.max_new_tokens < 1 or request.temperature < 0:
        raise ValueError(f"a request needs a prompt, samples >= 1, max_new_tokens >= 1 and temperature >= 0, not {request}")
    if not 0 < request.top_p <= 1 or request.top_k < 0 or not 0 <= request.min_p <= 1:
        raise ValueError(f"a request needs 0 < top_p <= 1, top_k >= 0 and 0 <= min_p <= 1, not {request}")


def check_version(sample: Sample, versions: range, index: int, k: int) -> None:
    """Raises UserError for a sample of other weights than were asked for, which are those of these updates: what was learnt never reached the
    sampler."""
    drew = [sample.weight_version, *(version for _, version in sample.newer)]
    if not set(drew) <= set(versions) or drew != sorted(drew):
        asked = f"update {versions[0]}" if len(versions) == 1 else f"updates {versions[0]} to {versions[-1]}"
        raise UserError(
            f"sample {k} of prompt {index} was drawn with the weights of update {' and '.join(map(str, drew))}, and those of {asked} were asked "
            "for: the rollout engine did not take over the new weights; resume from the last checkpoint"
        )


class RolloutEngine(Protocol):
    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        """Takes over the trainer's weights: (Hugging Face name, full tensor) one at a time. version: what the trainer calls them; every sample
        drawn from them says it."""
        ...

    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        """Samples each request; result[i][k] is sample k of request i. `on_sample(i, k, sample)` is called as each one ends."""
        ...

    def sleep(self) -> None:
        """Called before a training step: an engine may give up what memory it can, its weights too, as a refit comes before the next
        `generate`. Those that hold little do nothing."""
        return  # without it the protocol would ask every engine for its own

    def close(self) -> None:
        """Ends what the engine started: processes of its own. It must not be used afterwards."""
        return
