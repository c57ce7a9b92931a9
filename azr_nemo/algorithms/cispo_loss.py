"""Clipped IS-weight policy optimisation (CISPO, MiniMax-M1, arXiv 2506.13585): the weight is clipped, the gradient is not.

    ratio = exp(logp - logp_old)
    loss  = -sg(clip(ratio, 1 - low, 1 + high)) * A * logp                       (sg: no gradient)

PPO's clip stops the gradient of a token that has moved far, often of the rare ones on which a line of thought turns ("wait", "however").
Here every token keeps a gradient, of bounded size: REINFORCE with a truncated importance weight. The paper bounds the weight from above
alone (low = 1 is no bound) and averages over tokens. The loss's value means little, as it has logp in it where PPO's has a ratio.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import bounded


def cispo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss per token and its statistics, all in the shape of the inputs (any shape, all alike; natural logarithms).

    Statistics: `ratio`, and `clipped`, 1 where the weight is not the ratio.
    """
    ratio = torch.exp(bounded(logprobs - old_logprobs)).detach()
    weight = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -weight * advantages * logprobs, {"ratio": ratio, "clipped": (weight != ratio).float()}
