"""Log-probability and entropy of chosen tokens straight from hidden states, with a vocabulary that may be split over ranks.

Only the positions that are learnt from reach the output layer, the softmax is computed in fp32 a few rows at a time, and nothing larger
than the logits is kept for the backward pass. Logits are in the model's dtype, or in fp32 from the start: those of bfloat16 go in steps of 1/8
from 16 on, an error that log-probabilities inherit (MiniMax-M1, arXiv 2506.13585, recommends fp32 for the output layer).
"""

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region, gather_from_sequence_parallel_region
from torch import Tensor
from torch.autograd.function import once_differentiable

from azr_nemo.megatron.batches import Blocks

# Elements of an fp32 block of logits: small enough for a core's cache, or large enough to fill a GPU.
BLOCK = {"cpu": 2**20, "cuda": 2**27}


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        first: int,
        temperature: float,
        group: dist.ProcessGroup | None,
        fp32_logits: bool,
    ) -> tuple[Tensor, Tensor]:
        logits = wide_product(hidden, weight.t()) if fp32_logits else hidden @ weight.t()
        # A target of another rank's part of the vocabulary counts 0 here and is added in by the reduction.
        local = targets - first
        owned = (local >= 0) & (local < weight.size(0))
        local = torch.where(owned, local, 0)
        # Per row: largest logit, sum of exp(x - top), sum of exp(x - top) * (x - top), the target's logit.
        top, mass, moment, chosen = (hidden.new_zeros(hidden.size(0), dtype=torch.float32) for _ in range(4))
        for rows in _blocks(logits):
            x = logits[rows].to(torch.float32, copy=True).div_(temperature)
            top[rows] = x.amax(-1)
            chosen[rows] = x.gather(-1, local[rows, None])[:, 0]
            x.sub_(top[rows, None])
            powers = x.exp()
            mass[rows] = powers.sum(-1)
            moment[rows] = powers.mul_(x).sum(-1)
            del x, powers  # two blocks at a time, as the next one begins
        chosen = torch.where(owned, chosen, 0.0)
        if group is not None and group.size() > 1:
            own = top.clone()
            dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
            shift = own - top
            scale = shift.exp()
            sums = torch.stack([mass * scale, (moment + shift * mass) * scale, chosen])
            dist.all_reduce(sums, group=group)
            mass, moment, chosen = sums.unbind(0)
        normaliser = mass.log() + top
        entropy = mass.log() - moment / mass
        ctx.save_for_backward(hidden, weight, logits, local, owned, normaliser, entropy)
        ctx.temperature = temperature
        return chosen - normaliser, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprob: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, logits, local, owned, normaliser, entropy = ctx.saved_tensors
        for rows in _blocks(logits):
            # d logp_t / dx_j = [j = t] - p_j;  d entropy / dx_j = -p_j (log p_j + entropy)
            logp = logits[rows].to(torch.float32, copy=True).div_(ctx.temperature).sub_(normaliser[rows, None])
            p = logp.exp()
            logp.add_(entropy[rows, None]).mul_(-grad_entropy[rows, None]).sub_(grad_logprob[rows, None]).mul_(p)
            logp.scatter_add_(-1, local[rows, None], torch.where(owned[rows], grad_logprob[rows], 0.0)[:, None])
            del p
            logits[rows].copy_(logp.div_(ctx.temperature))
            del logp
        learns = ctx.needs_input_grad[1]  # the head of a model with adapters does not
        if logits.dtype == weight.dtype:
            grad_hidden, grad_weight = logits @ weight, logits.t() @ hidden if learns else None
        else:
            grad_hidden, grad_weight = wide_gradients(logits, weight, hidden, learns, split=logits.device.type == "cuda")
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden.to(hidden.dtype), grad_weight, None, None, None, None, None


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right in fp32. Of bfloat16 factors a GPU's tensor cores give just that: each product is exact in fp32, in which they are added up."""
    if left.device.type == "cuda" and left.dtype == right.dtype == torch.bfloat16:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def wide_gradients(logits: Tensor, weight: Tensor, hidden: Tensor, learns: bool, split: bool) -> tuple[Tensor, Tensor | None]:
    """logits @ weight and logits.t() @ hidden, both fp32, of fp32 logits [n, V] and narrower weight [V, H] and hidden [n, H].

    learns: whether the second is wanted.

    split: the logits are taken as the sum of two numbers of the narrow dtype, 16 digits of bfloat16 together, so that a GPU multiplies on its tensor
    cores; a few rows at a time, as the halves are as large as the logits.
    """
    grad_hidden = torch.empty_like(hidden, dtype=torch.float32)
    grad_weight = torch.zeros_like(weight, dtype=torch.float32) if learns else None
    for rows in _blocks(logits):
        parts = [logits[rows]]
        if split:
            high = parts[0].to(weight.dtype)
            parts = [high, (parts[0] - high).to(weight.dtype)]
        grad_hidden[rows] = sum(wide_product(part, weight) for part in parts)
        if grad_weight is not None:
            for part in parts:
                grad_weight.add_(wide_product(part.t(), hidden[rows]))
    return grad_hidden, grad_weight


def token_scores(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    first: int = 0,
    temperature: float = 1.0,
    group: dist.ProcessGroup | None = None,
    fp32_logits: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of targets and entropies, both [N] fp32, under softmax(hidden @ weight.T / temperature).

    hidden: [N, H]. weight: [V_local, H], this rank's rows of the output layer, of which `first` is the first token id. targets: [N] token
    ids. group: the ranks that hold the other rows. fp32_logits: hidden @ weight.T itself is computed, and kept, in fp32. Differentiable once in
    hidden and weight.
    """
    return _TokenScores.apply(hidden, weight, targets, first, temperature, group, fp32_logits)


def _blocks(logits: Tensor) -> list[slice]:
    rows = max(1, BLOCK[logits.device.type] // max(1, logits.size(1)))
    return [slice(start, start + rows) for start in range(0, logits.size(0), rows)]


class ScoringGPT(GPTModel):
    """GPTModel whose last stage, when given labels [1, s] and, as loss_mask, the positions [n] of those that are learnt, returns
    (log-probabilities, entropies), both [n].

    Positions and no mask: of a mask the host would have to ask the device how many there are. Without labels it returns logits, as GPTModel does.
    """

    temperature: float = 1.0
    true_vocab: int = 0
    fp32_logits: bool = False

    def freeze_embeddings(self) -> None:
        """The embedding and the output layer of this rank, tied or not, stay as they are: of a small model with a large vocabulary they are a third."""
        for name, parameter in self.named_parameters():
            if name.startswith(("embedding.word_embeddings.", "output_layer.")):
                parameter.requires_grad_(False)

    def _preprocess(self, input_ids: Tensor, position_ids: Tensor, **rest: Any) -> tuple[Any, ...]:
        """As GPTModel, with the rotary embeddings of every token's own position: Megatron takes rows to count from 0."""
        decoder_input, rotary, *others = super()._preprocess(input_ids=input_ids, position_ids=position_ids, **rest)
        packed = rest.get("packed_seq_params")
        if isinstance(packed, Blocks) and any(seen is not None for seen in packed.seen):
            rotary = rotary[position_ids[0]]
        return decoder_input, rotary, *others

    def _postprocess(self, hidden_states: Tensor, labels: Tensor | None = None, loss_mask: Tensor | None = None, **rest: Any) -> Any:
        if not self.post_process or labels is None or loss_mask is None:
            return super()._postprocess(hidden_states=hidden_states, labels=labels, loss_mask=loss_mask, **rest)
        weight = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else self.output_layer.weight
        group = self.pg_collection.tp
        first = group.rank() * weight.size(0)
        # Rows that only pad the vocabulary are left out, so they take no probability and no gradient.
        if (own := max(0, self.true_vocab - first)) < weight.size(0):
            weight = weight[:own]  # only then: a slice's gradient is one more table
        if self.config.sequence_parallel:
            # Every rank has its part of the positions and needs all of them for its part of the vocabulary.
            hidden = gather_from_sequence_parallel_region(hidden_states, group=group)[:, 0].index_select(0, loss_mask)
        else:
            hidden = copy_to_tensor_model_parallel_region(hidden_states[:, 0].index_select(0, loss_mask), group=group)
        targets = labels[0].index_select(0, loss_mask)
        return token_scores(hidden, weight, targets, first=first, temperature=self.temperature, group=group, fp32_logits=self.fp32_logits)
