"""NeMo-Aligner's actor with Absolute Zero's loss.

What differs from MegatronGPTActorModel 0.7.0: a response that was cut at the length limit learns like any other (there its mask is
multiplied by `is_end`), the loss is a mean over all response tokens of the optimizer step rather than per micro-batch, log-probabilities and
entropy are those of the tempered distribution that was sampled from, bounds of the clip may differ, and the dual clip is there.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.num_microbatches_calculator import get_num_microbatches
from megatron.core.parallel_state import get_tensor_model_parallel_group
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from nemo.collections.nlp.modules.common.megatron.utils import get_iterator_k_split
from nemo.collections.nlp.parts.utils_funcs import get_last_rank
from nemo_aligner.models.nlp.gpt.megatron_gpt_ppo_actor import MegatronGPTActorModel
from nemo_aligner.utils import parallel_state
from nemo_aligner.utils.distributed import from_parallel_logits_to_logprobs
from nemo_aligner.utils.train_utils import set_sync_funcs
from omegaconf import DictConfig
from torch import Tensor

from azr_nemo import progress
from azr_nemo.algorithms.finite import bounded
from azr_nemo.algorithms.ppo_loss import ppo_loss
from azr_nemo.megatron.finite_weights import Growth


class _Entropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        group = get_tensor_model_parallel_group()
        highest = logits.amax(-1, keepdim=True)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
        shifted = logits - highest
        weights = shifted.exp()
        sums = torch.stack([weights.sum(-1), (weights * shifted).sum(-1)])
        dist.all_reduce(sums, group=group)
        total, mean = sums[0], sums[1] / sums[0]
        # H = log Z - E[s] and dH/ds_i = p_i (E[s] - s_i)
        ctx.save_for_backward(weights.div_(total[..., None]).mul_(mean[..., None] - shifted))
        return total.log() - mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (derivative,) = ctx.saved_tensors
        return derivative * gradients[0][..., None]


def entropy(logits: Tensor) -> Tensor:
    """[B, S] in nats, from this rank's logits [B, S, V / tensor parallel], float32. Differentiable."""
    return _Entropy.apply(logits)


SUMS = ("pg_loss", "entropy", "clip_fraction", "ppo_ratio", "kl")


class SelfPlayActor(MegatronGPTActorModel):
    """cfg.ppo also has `temperature`, `clip_low`, `clip_high`, `dual_clip` and `entropy`."""

    def __init__(self, cfg: DictConfig, trainer: Any) -> None:
        super().__init__(cfg, trainer)
        self.temperature = float(cfg.ppo.temperature)
        self._growth: Growth | None = None
        self.step_tokens = 0.0  # response tokens of the optimizer step in hand, over all data-parallel ranks

    def sampling(self, max_new_tokens: int, temperature: float) -> None:
        """What the next `infer` calls sample: at most max_new_tokens at this temperature; 0 is greedy."""
        greedy = temperature == 0
        self._length_params["max_length"] = max_new_tokens
        self._sampling_params |= {"use_greedy": greedy, "temperature": 1.0 if greedy else temperature}
        if self.use_trtllm_generation:
            config = self.trtllm_generate.sampling_config
            config.update(max_new_tokens=max_new_tokens, temperature=1.0 if greedy else temperature, top_k=1 if greedy else 0)

    def growth(self) -> float:
        """By what factor the weights became larger since the time before, on the rank where that is most; 1 the first time, infinite when one
        is not finite. Collective."""
        if self._growth is None:
            self._growth = Growth(self.parameters())
        values = torch.tensor(self._growth.update(), device=torch.cuda.current_device())
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return float(values)

    def get_loss_and_metrics(self, batch: dict[str, Tensor], forward_only: bool) -> tuple[float, dict[str, float]]:
        """One forward and backward over this rank's rows of an optimizer step; metrics are means over all its response tokens.

        batch: response_tokens [B, S] (prompt and response, right-padded); advantages, mask and prev_logprobs [B, S-1]. kl is the low-variance
        estimate of KL(old policy || policy) (http://joschu.net/blog/kl-approx.html): 0 at the first optimizer step on a batch.
        """
        tokens = batch["response_tokens"]
        batch["attention_mask"], _, batch["position_ids"] = self.get_ltor_masks_and_position_ids(tokens=tokens)
        device, group = torch.cuda.current_device(), parallel_state.get_data_parallel_group()
        count = batch["mask"].sum().double().to(device)
        dist.all_reduce(count, group=group)
        self.step_tokens = max(float(count), 1.0)
        set_sync_funcs(self, forward_only)
        progress.expect(get_num_microbatches(), "micro-batches")
        micro_batches = progress.counted(get_iterator_k_split(batch, get_num_microbatches()))
        statistics = get_forward_backward_func()(
            forward_step_func=self.get_actor_forward_output_and_loss_func(),
            data_iterator=self._make_data_iterator_list(micro_batches),
            model=self.model,
            num_microbatches=get_num_microbatches(),
            forward_only=forward_only,
            seq_length=tokens.size(1),
            micro_batch_size=self.cfg.micro_batch_size,
        )
        sums = torch.zeros(len(SUMS), dtype=torch.float64, device=device)
        for entry in statistics:
            sums += entry["sums"]
        dist.all_reduce(sums, group=group)
        dist.broadcast(sums, get_last_rank())  # only the last pipeline stage has any
        metrics = dict(zip(SUMS, (sums / self.step_tokens).tolist(), strict=True))
        loss = metrics["pg_loss"] - self.cfg.ppo.entropy * metrics["entropy"]
        return loss, {**metrics, "loss": loss, "tokens": self.step_tokens}

    def get_actor_forward_output_and_loss_func(self) -> Callable[..., Any]:
        def forward(data_iterator: Iterator[dict[str, Tensor]], model: torch.nn.Module) -> tuple[Tensor, Callable[..., Any]]:
            batch = {name: tensor.cuda(non_blocking=True) for name, tensor in next(data_iterator).items()}
            logits = model(batch["response_tokens"], batch["position_ids"], batch["attention_mask"], labels=None)
            return logits, lambda output: self.loss_of(output, batch)

        return forward

    def loss_of(self, logits: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the loss, and its sums by the names in SUMS. logits: [B, S, V / tensor parallel]."""
        ppo = self.cfg.ppo
        logits = logits.float() / self.temperature
        logprobs = from_parallel_logits_to_logprobs(vocab_parallel_logits=logits, target=batch["response_tokens"], higher_stability=True)
        entropies = entropy(logits)[:, :-1]
        old, mask = batch["prev_logprobs"], batch["mask"]
        losses, stats = ppo_loss(
            logprobs, old, batch["advantages"], clip_low=ppo.clip_low, clip_high=ppo.clip_high, dual_clip=ppo.dual_clip
        )
        loss = ((losses - ppo.entropy * entropies) * mask).sum() / self.step_tokens
        # Megatron's schedule divides by the micro-batches and the gradients are averaged over data-parallel ranks: neither is a mean over tokens.
        loss = loss * get_num_microbatches() * parallel_state.get_data_parallel_world_size()
        with torch.no_grad():
            difference = bounded(logprobs - old)
            kl = difference.exp() - 1 - difference
            values = (losses, entropies, stats["clipped"], stats["ratio"], kl)
            sums = torch.stack([(value * mask).sum().double() for value in values])
        return loss, {"sums": sums}

    def get_logprob_output_only_func(self, inference_only: bool = True) -> Callable[..., Any]:
        """NeMo-Aligner's, with tempered logits."""
        forward = self.get_forward_output_only_func()

        def logprobs_of(data_iterator: Iterator[Any], model: torch.nn.Module) -> tuple[Tensor, Callable[..., Tensor]]:
            batch = next(data_iterator)
            output, _ = forward(iter([batch]), model)

            def score(logits: Tensor, non_loss_data: bool = True) -> Tensor:
                return from_parallel_logits_to_logprobs(
                    vocab_parallel_logits=logits.float() / self.temperature,
                    target=batch[0],
                    inference_only=inference_only,
                    higher_stability=True,
                )

            return output, score

        return logprobs_of
