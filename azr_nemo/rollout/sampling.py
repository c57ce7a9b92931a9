"""Seeded sampling by inverse CDF: a row's token depends on its own logits and its own uniform, never on the rest of the batch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # tokens summed before the search; a search over blocks, then inside one, spares a cumulative sum over the vocabulary
WORD = 2**64


def uniforms(seed: int, sample: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64, of sample number `sample` of a request with this seed.

    Philox is counter-based (Salmon et al., SC'11): the pair is its key, so streams need no shared state and no order.
    """
    key = np.array([seed % WORD, sample % WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def draw(logits: Tensor, uniform: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row: (token ids [rows] int64, log-probabilities [rows] float64).

    logits: [rows, vocabulary], any float dtype. uniform: [rows] float64 in [0, 1). temperature: [rows]; 0 takes the most likely token and
    its log-probability under the untempered distribution, otherwise both belong to softmax(logits / temperature).
    Raises FloatingPointError where a row of logits has NaN or +inf.
    """
    greedy = temperature == 0
    if bool((temperature != 1).any()):
        scaled = logits.float() / temperature.float().masked_fill(greedy, 1.0)[:, None]
    else:
        scaled = logits
    weights = torch.softmax(scaled, dim=-1, dtype=torch.float32)
    if weights.shape[1] % BLOCK:
        weights = F.pad(weights, (0, -weights.shape[1] % BLOCK))
    blocks = weights.view(len(weights), -1, BLOCK)
    totals = blocks.sum(-1)
    cumulative = totals.double().cumsum(-1)
    if not bool(torch.isfinite(cumulative[:, -1]).all()):
        raise FloatingPointError("the model's logits are not finite")
    block, share = _search(cumulative, uniform)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block].double().cumsum(-1)
    position, _ = _search(inside, share)
    tokens = block * BLOCK + position
    if bool(greedy.any()):
        tokens = torch.where(greedy, logits.argmax(-1), tokens)
    chosen = weights.gather(1, tokens[:, None])[:, 0].double()
    return tokens, torch.log(chosen / cumulative[:, -1])


def _search(cumulative: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of each row that `uniform` of its total falls into, and how far into it, as a share in [0, 1].

    The target stays below the total, so an interval of weight zero is never chosen, whatever the rounding.
    """
    total = cumulative[:, -1:]
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target, right=True)
    upper = cumulative.gather(1, index)
    lower = torch.where(index > 0, cumulative.gather(1, (index - 1).clamp(min=0)), 0.0)
    return index[:, 0], ((target - lower) / (upper - lower))[:, 0]
