"""The engine's protocol: whatever can generate, learn, save and load can drive the self-play step."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from azr_nemo.selfplay.exchange import Completion, PromptBatch, TrainingBatch


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

    def update(self, batch: TrainingBatch) -> dict[str, float]:
        """Learns from all rows, in as many optimizer steps as configured, then refits; returns metrics (loss, grad_norm, clip_fraction, ...)."""
        ...

    def supervise(self, examples: list[Example], lr: float | None = None) -> dict[str, float]:
        """One optimizer step of cross-entropy at this learning rate (None: the configured one), without a refit; returns metrics."""
        ...

    def refit(self) -> None:
        """Hands the trainer's weights to the rollout engine."""
        ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weight stream: (Hugging Face name, full tensor), in the model's dtype."""
        ...

    def save(self, directory: Path) -> None:
        """Writes weights, optimizer and scheduler into an existing empty directory."""
        ...

    def load(self, directory: Path) -> None:
        """Takes back what `save` wrote, bit for bit, possibly at another parallel layout."""
        ...

    def close(self) -> None: ...
