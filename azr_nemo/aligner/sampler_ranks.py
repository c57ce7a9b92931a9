"""Sampling through NeMo-Aligner's `infer`: each data-parallel rank generates its micro-batches, and every rank gets all of what was sampled."""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from nemo_aligner.algorithms.ppo import compute_num_rollout_microbatches
from nemo_aligner.utils import parallel_state
from nemo_aligner.utils.batch_iterators import DefaultBatchIterator
from nemo_aligner.utils.parallel_state import trt_llm_reshard_region

from azr_nemo.aligner.collectives import gather_rows
from azr_nemo.aligner.dataset import PADDING, PromptRow, PromptSource
from azr_nemo.aligner.ppo_actor import SelfPlayActor
from azr_nemo.settings.schema import RunConfig

# One sample that has arrived: its index, its token ids, the end token included, and whether it ended by itself.
Arrived = Callable[[int, tuple[int, ...], bool], None]


class Sampler:
    """One on every rank. prepare_for_inference must have run, which hands the weights to TensorRT-LLM where that samples."""

    def __init__(self, actor: SelfPlayActor, source: PromptSource, config: RunConfig):
        self.actor, self.source = actor, source
        self.reshard = config.rollout.name == "trtllm" and config.aligner.reshard

    @torch.no_grad()
    def sample(self, order: dict[str, Any], arrived: Arrived) -> None:
        """Samples an order that rank 0 has broadcast: {rows: [[token id]], max_new_tokens, temperature, seed}. Collective.

        `arrived(index of the row, ids, finished)` is called for every row: for this rank's own as its micro-batches end, for the others' when
        they are gathered; a row may come twice. A micro-batch is seeded by its place, so that samples do not depend on how many data-parallel
        ranks there are.
        """
        limit = int(order["max_new_tokens"])
        self.source.open([PromptRow(index, tuple(ids)) for index, ids in enumerate(order["rows"])], room=limit)
        self.actor.sampling(limit, float(order["temperature"]))
        with trt_llm_reshard_region() if self.reshard else nullcontext():
            loader = self.source(consumed_samples=0)
            count = compute_num_rollout_microbatches(loader)
            batches = DefaultBatchIterator(iter(loader.batch_sampler), count, loader.dataset, loader.collate_fn)
            rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
            speaks = torch.distributed.get_rank() == parallel_state.get_model_parallel_src_rank()
            mine: list[list[int]] = []
            for number, batch in enumerate(batches):
                self._seed(order["seed"], number * ranks + rank)
                for index, ids, finished in self._infer(batch, limit) if speaks else self._silent(batch):
                    mine.append([index, int(finished), *ids])
                    arrived(index, ids, finished)
        for index, ended, *numbers in gather_rows(mine):
            arrived(index, tuple(numbers), bool(ended))
        self.source.open((), room=0)

    def _infer(self, batch: dict[str, torch.Tensor], limit: int) -> list[tuple[int, tuple[int, ...], bool]]:
        """What `infer` made of a micro-batch. NeMo lets shorter prompts run on while a longer one has tokens left: what is over is cut off."""
        output = self.actor.infer(batch)
        columns = [output[name].tolist() for name in ("response_tokens", "prompt_lengths", "response_lengths", "is_end")]
        rows = []
        for index, tokens, start, end, ended in zip(batch["index"].tolist(), *columns, strict=True):
            if index != PADDING:
                rows.append((index, tuple(tokens[start : min(end, start + limit)]), bool(ended) and end - start <= limit))
        return rows

    def _silent(self, batch: dict[str, torch.Tensor]) -> list[tuple[int, tuple[int, ...], bool]]:
        """On a rank that takes part in the generation, but whose model-parallel source tells what came of it."""
        self.actor.infer(batch)
        return []

    def _seed(self, seed: str, place: int) -> None:
        number = int.from_bytes(hashlib.blake2b(f"{seed}:{place}".encode(), digest_size=8).digest()) >> 1
        torch.manual_seed(number)
        if self.actor.use_trtllm_generation:
            self.actor.trtllm_generate.rng_generator.manual_seed(number)
