"""The model being trained: log-probabilities, PPO and supervised steps, through Megatron's schedules, data parallelism and optimizer.

An optimizer step covers all rows of a batch, or of one of its mini-batches. Its rows are packed into micro-batches, yet the loss is a mean over
all its response tokens, or all its responses, so the result depends neither on the packing nor on the number of data-parallel ranks.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo import progress
from azr_nemo.megatron import distributed
from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.megatron.batches import MicroBatch, mini_batches, on_device, pack
from azr_nemo.megatron.finite_weights import Growth
from azr_nemo.megatron.generation import request_seed
from azr_nemo.megatron.huggingface import open_weights
from azr_nemo.megatron.layers import SHORT
from azr_nemo.megatron.lora import attach
from azr_nemo.megatron.model import bare, build_model, has_transformer_engine_layers
from azr_nemo.megatron.optimizer import make_optimizer, make_scheduler
from azr_nemo.megatron.peft_directory import load_adapters
from azr_nemo.megatron.platform import Platform, choose_dtype
from azr_nemo.megatron.policy import PolicyScore
from azr_nemo.megatron.weight_stream import import_weights
from azr_nemo.selfplay.exchange import Example, TrainingBatch
from azr_nemo.settings.schema import RunConfig

# Of one micro-batch: the loss summed over its tokens, and sums for the metrics, from log-probabilities and entropies [n].
Score = Callable[[MicroBatch, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


class Actor:
    """This rank's part of the model with its optimizer and scheduler. Every method is collective: all ranks call it with the same rows."""

    def __init__(self, config: RunConfig, hf_config: PretrainedConfig, platform: Platform, model_dir: Path) -> None:
        """Builds the model and imports model_dir's weights; `distributed.start` must have run."""
        self.config, self.hf_config, self.platform = config, hf_config, platform
        self.dtype, self.adapted = choose_dtype(config.model.dtype, platform), config.model.lora.rank > 0
        model = build_model(
            hf_config, platform, config.engine, self.dtype, config.rollout.temperature, config.model.fp32_logits, self.adapted
        )
        with open_weights(model_dir, hf_config) as weights:
            weights.refuse_others(import_weights(model, hf_config, weights.part))
        if self.adapted:
            attach(bare(model), config.model.lora, read_architecture(hf_config), config.seed)
            if config.model.lora.path:
                load_adapters(bare(model), config.model.lora)
        elif not config.optim.train_embeddings:
            bare(model).freeze_embeddings()
        ddp = DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            # Gradients travel while the last micro-batch still goes backward. Weights do not come back that way (overlap_param_gather): the refit
            # that follows every step wants all of them at once.
            overlap_grad_reduce=has_transformer_engine_layers(platform, self.dtype, self.adapted),
            use_distributed_optimizer=config.engine.distributed_optimizer,
        )
        transformer = bare(model).config
        transformer.finalize_model_grads_func = finalize_model_grads
        with platform.scope():
            self.model = DistributedDataParallel(transformer, ddp, model)
        if ddp.overlap_grad_reduce:
            transformer.no_sync_func = self.model.no_sync
        self.supervised = False
        self._growth = Growth(self.model.parameters())
        self.reset_optimizer()

    def reset_optimizer(self) -> None:
        """A new optimizer without moments, its fp32 master weights taken from the model, and the learning-rate schedule at its start."""
        with self.platform.scope():
            self.optimizer = make_optimizer(self.model, self.config, self.dtype)
            self.scheduler = make_scheduler(self.optimizer, self.config.optim)

    def growth(self) -> float:
        """By what factor the latest update made the weights larger, on the rank where it is largest; infinite when one is not finite. The
        weights themselves are looked at, since loss and gradient may be finite where Adam's step is not."""
        with distributed.waiting():
            growth = self._growth.update()
        return distributed.largest(growth)

    @property
    def updates(self) -> int:
        """Self-play updates that the weights have had, over all starts of the run."""
        return 0 if self.supervised else int(self.scheduler.num_steps)

    def logprobs(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities [B, T] of the responses' tokens, fp32 on the CPU, 0 beyond a response. Logits are tempered first."""
        longest = max(map(len, responses))
        out = torch.zeros(len(responses), longest)
        found: list[tuple[MicroBatch, Tensor]] = []

        def score(batch: MicroBatch, logprobs: Tensor, entropies: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            found.append((batch, logprobs.detach()))
            return logprobs.sum(), {}

        with torch.no_grad():
            self._run(self._pack(prompts, responses, torch.ones(len(responses), longest)), score, (), learn=False)
        if found and parallel_state.get_tensor_model_parallel_rank() == 0:
            rows, times = (torch.cat([getattr(batch, name) for batch, _ in found]) for name in ("rows", "times"))
            with distributed.waiting():
                out[rows, times] = torch.cat([logprobs for _, logprobs in found]).cpu()
        dist.all_reduce(out)
        return out

    def update(self, batch: TrainingBatch) -> dict[str, float]:
        """Learns from all rows: one optimizer step, or `optim.mini_batches` of them over the shuffled rows, all at one learning rate.

        With a single step the policy that is improved is the one being evaluated: its old log-probabilities are its current ones, detached,
        and cost no second forward pass. Every ratio is then 1 and no clip bites. With several, they are computed first. Metrics are means over
        the steps, each a mean over its response tokens; tokens is their sum. The rollout engine's log-probabilities enter the loss with
        `optim.importance_sampling=on`, and of rows that older weights have drawn (policy.py). Of the rows that the current ones have
        drawn, rollout_kl is the mean of log p_rollout - log p_trainer, before the first step, and rollout_kl_k3 its low-variance estimate
        (http://joschu.net/blog/kl-approx.html).
        """
        with self._gradients():
            return self._update(batch)

    def _update(self, batch: TrainingBatch) -> dict[str, float]:
        started = time.perf_counter()
        if self.supervised:
            # What a warm start leaves in Adam's moments must not steer self-play, and weights that were warm-started in an earlier run
            # must continue exactly like these.
            self.reset_optimizer()
            self.supervised = False
        ages = (int(self.scheduler.num_steps) - batch.versions).clamp(min=0)
        self.scheduler.step(1)
        passes = 1 if self.config.optim.mini_batches == 1 else 2
        progress.expect(passes * len(batch.prompt_ids) // parallel_state.get_data_parallel_world_size(), "rows")
        if passes == 1:
            steps = [self._learn(batch, None, ages)]
        else:
            old = self.logprobs(batch.prompt_ids, batch.response_ids)
            # The scheduler counts self-play steps and is in the checkpoint, so a resumed run deals the rows as one that was not interrupted.
            seed = request_seed(self.config.seed, self.scheduler.num_steps)
            parts = mini_batches(len(batch.prompt_ids), self.config.optim.mini_batches, seed)
            steps = [self._learn(batch.take(rows), old[rows], ages[rows]) for rows in parts]
        means = {
            name: _mean([step[name] for step in steps if name in step]) for name in dict.fromkeys(name for step in steps for name in step)
        }
        return {**means, "tokens": sum(step["tokens"] for step in steps), "update_s": time.perf_counter() - started}

    def _learn(self, batch: TrainingBatch, old_logprobs: Tensor | None, ages: Tensor) -> dict[str, float]:
        """One optimizer step over all rows. old_logprobs: [B, T], or None where they are the current ones. ages: [B], of the rows, in updates."""
        score = PolicyScore(batch, old_logprobs, ages, self.config.optim)
        return self._step(self._pack(batch.prompt_ids, batch.response_ids, batch.mask), score, score.names, score.tokens)

    def supervise(self, examples: list[Example], lr: float | None = None) -> dict[str, float]:
        """One optimizer step of cross-entropy on the responses, at learning rate lr, or the warm start's peak."""

        def score(batch: MicroBatch, logprobs: Tensor, entropies: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return -logprobs.sum(), {"loss": -logprobs.detach().sum()}

        self.supervised = True
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.warmup.lr if lr is None else lr
        prompts, responses = [example.prompt_ids for example in examples], [example.response_ids for example in examples]
        mask = torch.ones(len(examples), max(map(len, responses)))
        with self._gradients():
            return self._step(self._pack(prompts, responses, mask), score, ("loss",))

    @contextlib.contextmanager
    def _gradients(self) -> Iterator[None]:
        """Inside, gradients have their memory. Outside the sampler has it, from the first update on, where `engine.offload_gradients` is."""
        offload, cuda = self.config.engine.offload_gradients, self.platform.device.type == "cuda"
        if offload:
            self.model.restore_grad_buffers(synchronize=cuda)
        yield
        if offload:
            self.optimizer.zero_grad()  # what the optimizer made of them
            self.model.offload_grad_buffers(synchronize=cuda, empty_cache=cuda)

    def _pack(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], mask: Tensor) -> list[MicroBatch]:
        share, shares = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        engine = self.config.engine
        multiple = engine.tensor_parallel if engine.sequence_parallel else 1
        # TransformerEngine's attention knows rows alone.
        block = 0 if has_transformer_engine_layers(self.platform, self.dtype, self.adapted) else SHORT
        return pack(prompts, responses, mask, engine.micro_batch_tokens, share, shares, multiple, block)

    def _step(
        self, batches: list[MicroBatch], score: Score, names: Sequence[str], counts: Mapping[str, float] = MappingProxyType({})
    ) -> dict[str, float]:
        """One optimizer step. counts: of how many tokens a metric is the mean where it is not of all; without any it is left out."""
        started = time.perf_counter()
        with self.platform.scope():
            self.model.zero_grad_buffer()
            self.optimizer.zero_grad()
        sums = self._run(batches, score, names, learn=True)
        tokens = sums.pop("tokens")
        if not tokens:
            raise ValueError("the batch has no response token to learn from")
        with self.platform.scope():
            _, norm, _ = self.optimizer.step()
        rates = [group["lr"] for group in self.optimizer.param_groups]
        means = {name: value / counts.get(name, tokens) for name, value in sums.items() if counts.get(name, tokens)}
        return {**means, "grad_norm": float(norm), "lr": max(rates), "tokens": tokens, "update_s": time.perf_counter() - started}

    def _run(self, batches: list[MicroBatch], score: Score, names: Sequence[str], learn: bool) -> dict[str, float]:
        """Forward (and backward) over this rank's micro-batches; all ranks' sums of what score calls by names, and the token count."""

        def forward(iterator: Any, model: torch.nn.Module) -> tuple[Any, Any]:
            batch = next(iterator)
            distributed.advance()
            device = self.platform.device
            output = model(
                on_device(batch.tokens, device),
                on_device(batch.positions(), device),
                None,
                labels=on_device(batch.targets, device),
                loss_mask=on_device(batch.learnt, device),
                packed_seq_params=batch.packed(device),
            )

            def loss(output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                total, sums = score(batch, *output)
                count = torch.full((), len(batch.rows), dtype=torch.int, device=device)
                return total, count, {**sums, "tokens": count}

            return output, loss

        with self.platform.scope():
            statistics = get_forward_backward_func()(
                forward_step_func=forward,
                data_iterator=progress.counted(batches, lambda batch: len(batch.rows.unique())),
                model=[self.model],
                num_microbatches=len(batches),
                seq_length=1,  # both unused: lengths vary and are told to the next stage
                micro_batch_size=1,
                forward_only=not learn,
            )
        return _total(statistics, (*names, "tokens"))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _total(statistics: list[dict[str, Tensor]], names: Sequence[str]) -> dict[str, float]:
    sums = torch.zeros(len(names), dtype=torch.float64)
    # Only last stages have statistics, and a tensor-parallel group's ranks all have the same. One wait for the device.
    if statistics and parallel_state.get_tensor_model_parallel_rank() == 0:
        found = torch.stack([torch.stack([entry[name].double() for name in names]) for entry in statistics]).sum(0)
        with distributed.waiting():
            sums += found.cpu()
    dist.all_reduce(sums)
    return dict(zip(names, sums.tolist(), strict=True))
