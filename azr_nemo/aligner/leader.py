"""Rank 0's side of self-play: to the driver and the roles it looks like any engine, and samples through all ranks."""

import math
from typing import Any

from azr_nemo.aligner.collectives import broadcast
from azr_nemo.aligner.ppo_actor import SelfPlayActor
from azr_nemo.aligner.sampler_ranks import Sampler
from azr_nemo.rollout.encoding import Encoder
from azr_nemo.selfplay.exchange import Completion, PromptBatch
from azr_nemo.settings.schema import RunConfig


class LeadingEngine:
    """The parts of azr_nemo.selfplay.exchange.Engine that a self-play generator needs: encode and generate."""

    def __init__(self, actor: SelfPlayActor, sampler: Sampler, config: RunConfig):
        self.tokenizer: Any = actor.tokenizer.tokenizer  # the one of transformers inside NeMo's
        self.encoder = Encoder(self.tokenizer)
        self.sampler, self.config = sampler, config

    def encode(self, text: str) -> list[int]:
        """Token ids, with the special tokens that this model puts around a text unless its template already has them."""
        return self.encoder.encode(text)

    def encode_response(self, text: str) -> list[int]:
        """Token ids of a response, the end token included."""
        return self.encoder.encode_response(text)

    def decode(self, ids: tuple[int, ...]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def generate(self, batch: PromptBatch, seed: int) -> list[list[Completion]]:
        """Samples every prompt; `on_completion` is called as micro-batches end. A completion's log-probabilities are not known (nan): neither
        NeMo's `generate` nor TensorRT-LLM hands them out here, the trainer computes its own. Raises ValueError for a prompt that is too long."""
        longest = self.config.rollout.max_prompt_tokens
        prompt_ids = [tuple(self.encode(prompt.text.full)) for prompt in batch.prompts]
        for index, ids in enumerate(prompt_ids):
            if len(ids) > longest:
                raise ValueError(f"prompt {index} has {len(ids)} tokens, more than rollout.max_prompt_tokens={longest}")
        seen: dict[tuple[int, int], Completion] = {}
        for place, (settings, wanted) in enumerate(_by_settings(batch).items()):

            def arrived(row: int, ids: tuple[int, ...], finished: bool, wanted: list[tuple[int, int]] = wanted) -> None:
                index, k = wanted[row]
                if (index, k) not in seen:
                    seen[index, k] = Completion(self.decode(ids), prompt_ids[index], ids, (math.nan,) * len(ids), finished)
                    if batch.on_completion is not None:
                        batch.on_completion(index, k, seen[index, k])

            order = {
                "do": "sample",
                "rows": [prompt_ids[index] for index, _ in wanted],
                "max_new_tokens": settings[0],
                "temperature": settings[1],
                "seed": f"{seed}/{place}",
            }
            self.sampler.sample(broadcast(order), arrived)
        return [[seen[index, k] for k in range(prompt.samples)] for index, prompt in enumerate(batch.prompts)]


def _by_settings(batch: PromptBatch) -> dict[tuple[int, float], list[tuple[int, int]]]:
    """(prompt, sample) of every sample that is wanted, by its (max_new_tokens, temperature): NeMo samples a batch with one of each."""
    found: dict[tuple[int, float], list[tuple[int, int]]] = {}
    for index, prompt in enumerate(batch.prompts):
        found.setdefault((prompt.max_new_tokens, prompt.temperature), []).extend((index, k) for k in range(prompt.samples))
    return found
