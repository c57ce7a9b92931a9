"""The model being trained: log-probabilities, PPO and supervised steps, through Megatron's schedules, data parallelism and optimizer.

An optimizer step covers all rows of a batch, or of one of its mini-batches. Its rows are packed into micro-batches, yet the loss is a mean over
all its response tokens, or all its responses, so the result depends neither on the packing nor on the number of data-parallel ranks.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo import progress
from azr_nemo.algorithms.aggregation import token_weights
from azr_nemo.algorithms.finite import bounded
from azr_nemo.algorithms.importance_sampling import importance_weights
from azr_nemo.algorithms.losses import LOSSES, Bounds, Moved
from azr_nemo.megatron import distributed
from azr_nemo.megatron.batches import MicroBatch, mini_batches, pack
from azr_nemo.megatron.finite_weights import Growth
from azr_nemo.megatron.generation import request_seed
from azr_nemo.megatron.huggingface import open_weights
from azr_nemo.megatron.layers import SHORT
from azr_nemo.megatron.model import bare, build_model, has_transformer_engine_layers
from azr_nemo.megatron.optimizer import make_optimizer, make_scheduler
from azr_nemo.megatron.platform import Platform, choose_dtype
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
        self.dtype = choose_dtype(config.model.dtype, platform)
        model = build_model(hf_config, platform, config.engine, self.dtype, config.rollout.temperature, config.model.fp32_logits)
        with open_weights(model_dir, hf_config) as weights:
            weights.refuse_others(import_weights(model, hf_config, weights.get))
        if not config.optim.train_embeddings:
            bare(model).freeze_embeddings()
        ddp = DistributedDataParallelConfig(
            grad_reduce_in_fp32=True, overlap_grad_reduce=False, use_distributed_optimizer=config.engine.distributed_optimizer
        )
        transformer = bare(model).config
        transformer.finalize_model_grads_func = finalize_model_grads
        with platform.scope():
            self.model = DistributedDataParallel(transformer, ddp, model)
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
        return distributed.largest(self._growth.update())

    @property
    def updates(self) -> int:
        """Self-play updates that the weights have had, over all starts of the run."""
        return 0 if self.supervised else int(self.scheduler.num_steps)

    def logprobs(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities [B, T] of the responses' tokens, fp32 on the CPU, 0 beyond a response. Logits are tempered first."""
        longest = max(map(len, responses))
        out = torch.zeros(len(responses), longest)

        def score(batch: MicroBatch, logprobs: Tensor, entropies: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            if parallel_state.get_tensor_model_parallel_rank() == 0:
                out[batch.rows.cpu(), batch.times.cpu()] = logprobs.detach().cpu()
            return logprobs.sum(), {}

        with torch.no_grad():
            self._run(self._pack(prompts, responses, torch.ones(len(responses), longest)), score, (), learn=False)
        dist.all_reduce(out)
        return out

    def update(self, batch: TrainingBatch) -> dict[str, float]:
        """Learns from all rows: one optimizer step, or `optim.mini_batches` of them over the shuffled rows, all at one learning rate.

        With a single step the policy that is improved is the one being evaluated: its old log-probabilities are its current ones, detached,
        and cost no second forward pass. Every ratio is then 1 and no clip bites. With several, they are computed first. Metrics are means over
        the steps, each a mean over its response tokens; tokens is their sum. The rollout engine's log-probabilities enter the loss with
        `optim.importance_sampling=on` alone: rollout_kl is the mean of log p_rollout - log p_trainer, before the first step, and rollout_kl_k3
        its low-variance estimate (http://joschu.net/blog/kl-approx.html).
        """
        started = time.perf_counter()
        if self.supervised:
            # What a warm start leaves in Adam's moments must not steer self-play, and weights that were warm-started in an earlier run
            # must continue exactly like these.
            self.reset_optimizer()
            self.supervised = False
        self.scheduler.step(1)
        passes = 1 if self.config.optim.mini_batches == 1 else 2
        progress.expect(passes * len(batch.prompt_ids) // parallel_state.get_data_parallel_world_size(), "rows")
        if passes == 1:
            steps = [self._learn(batch, None)]
        else:
            old = self.logprobs(batch.prompt_ids, batch.response_ids)
            # The scheduler counts self-play steps and is in the checkpoint, so a resumed run deals the rows as one that was not interrupted.
            seed = request_seed(self.config.seed, self.scheduler.num_steps)
            parts = mini_batches(len(batch.prompt_ids), self.config.optim.mini_batches, seed)
            steps = [self._learn(batch.take(rows), old[rows]) for rows in parts]
        means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        return {**means, "tokens": sum(step["tokens"] for step in steps), "update_s": time.perf_counter() - started}

    def _learn(self, batch: TrainingBatch, old_logprobs: Tensor | None) -> dict[str, float]:
        """One optimizer step over all rows. old_logprobs: [B, T], or None where they are the current ones."""
        optim = self.config.optim
        bounds = Bounds(optim.clip_low, optim.clip_high, optim.dual_clip)
        advantages, rollout = batch.advantages.float(), batch.rollout_logprobs.float()
        weights = token_weights(batch.mask.float(), optim.aggregation)

        def score(rows: MicroBatch, logprobs: Tensor, entropies: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            def here(values: Tensor) -> Tensor:
                return values[rows.rows.cpu(), rows.times.cpu()].to(logprobs.device)

            old = logprobs.detach() if old_logprobs is None else here(old_logprobs)
            losses, stats = LOSSES[optim.loss](Moved(logprobs, old, here(advantages), rows.rows.to(logprobs.device)), bounds)
            # What was not sampled counts as if the rollout engine agreed.
            drawn = here(rollout)
            drawn = torch.where(drawn.isnan(), old, drawn)
            # log p_trainer - log p_rollout, of tokens drawn from the rollout policy
            difference = bounded(old - drawn)
            sums = {
                "entropy": entropies,
                "clip_fraction": stats["clipped"],
                "rollout_kl": -difference,
                "rollout_kl_k3": difference.exp() - 1 - difference,
            }
            if optim.importance_sampling != "off":
                importance, capped = importance_weights(old, drawn, optim.importance_cap)
                sums |= {"is_weight_mean": importance, "is_capped": capped}
                if optim.importance_sampling == "on":
                    losses = losses * importance
            weight = here(weights)
            policy = (losses * weight).sum()
            loss = policy - optim.entropy * (entropies * weight).sum()
            return loss, {
                "loss": loss.detach(),
                "pg_loss": policy.detach(),
                **{name: values.detach().sum() for name, values in sums.items()},
            }

        names = ["loss", "pg_loss", "entropy", "clip_fraction", "rollout_kl", "rollout_kl_k3"]
        if optim.importance_sampling != "off":
            names += ["is_weight_mean", "is_capped"]
        return self._step(self._pack(batch.prompt_ids, batch.response_ids, batch.mask), score, names)

    def supervise(self, examples: list[Example], lr: float | None = None) -> dict[str, float]:
        """One optimizer step of cross-entropy on the responses, at learning rate lr, or the warm start's peak."""

        def score(batch: MicroBatch, logprobs: Tensor, entropies: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return -logprobs.sum(), {"loss": -logprobs.detach().sum()}

        self.supervised = True
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.warmup.lr if lr is None else lr
        prompts, responses = [example.prompt_ids for example in examples], [example.response_ids for example in examples]
        mask = torch.ones(len(examples), max(map(len, responses)))
        return self._step(self._pack(prompts, responses, mask), score, ("loss",))

    def _pack(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], mask: Tensor) -> list[MicroBatch]:
        share, shares = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        engine = self.config.engine
        multiple = engine.tensor_parallel if engine.sequence_parallel else 1
        # TransformerEngine's attention knows rows alone.
        block = 0 if has_transformer_engine_layers(self.platform, self.dtype) else SHORT
        return pack(prompts, responses, mask, engine.micro_batch_tokens, share, shares, multiple, block)

    def _step(self, batches: list[MicroBatch], score: Score, names: Sequence[str]) -> dict[str, float]:
        started = time.perf_counter()
        with self.platform.scope():
            if self.platform.device.type == "cpu":
                self.model.restore_grad_buffers(synchronize=False)
            self.model.zero_grad_buffer()
            self.optimizer.zero_grad()
        sums = self._run(batches, score, names, learn=True)
        tokens = sums.pop("tokens")
        if not tokens:
            raise ValueError("the batch has no response token to learn from")
        with self.platform.scope():
            _, norm, _ = self.optimizer.step()
            if self.platform.device.type == "cpu":
                # While the model samples, the memory of its gradients is the sampler's. (A GPU's sampler has taken its own before.)
                self.optimizer.zero_grad()
                self.model.offload_grad_buffers(synchronize=False, empty_cache=False)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        means = {name: value / tokens for name, value in sums.items()}
        return {**means, "grad_norm": float(norm), "lr": max(rates), "tokens": tokens, "update_s": time.perf_counter() - started}

    def _run(self, batches: list[MicroBatch], score: Score, names: Sequence[str], learn: bool) -> dict[str, float]:
        """Forward (and backward) over this rank's micro-batches; all ranks' sums of what score calls by names, and the token count."""

        def forward(iterator: Any, model: torch.nn.Module) -> tuple[Any, Any]:
            batch = next(iterator)
            distributed.advance()
            device = self.platform.device
            output = model(
                batch.tokens.to(device),
                batch.positions().to(device),
                None,
                labels=batch.targets.to(device),
                loss_mask=batch.mask.to(device),
                packed_seq_params=batch.packed(device),
            )

            def loss(output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                total, sums = score(batch, *output)
                count = torch.tensor(len(batch.rows), dtype=torch.int, device=device)
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


def _total(statistics: list[dict[str, Tensor]], names: Sequence[str]) -> dict[str, float]:
    sums = torch.zeros(len(names), dtype=torch.float64)
    # Only last stages have statistics, and a tensor-parallel group's ranks all have the same.
    if parallel_state.get_tensor_model_parallel_rank() == 0:
        for entry in statistics:
            sums += torch.tensor([float(entry[name]) for name in names], dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(names, sums.tolist(), strict=True))
