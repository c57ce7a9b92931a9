"""The clipped surrogate of PPO (arXiv 1707.06347), with DAPO's separate bounds (2503.14476) and the dual clip (1912.09729).

    ratio = exp(logp - logp_old)                                       (its logarithm within +-20: finite.py)
    loss  = max(-A * ratio, -A * clip(ratio, 1 - low, 1 + high))
    loss  = min(loss, -c * A)   where A < 0                              (dual clip, c > 1)

Elementwise: over what to average is another choice (aggregation.py).
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import bounded


def ppo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float, dual_clip: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss per token and its statistics, all in the shape of the inputs (any shape, all alike; natural logarithms).

    dual_clip: c, a bound on the loss where the advantage is negative; 0 switches it off. Statistics: `ratio`, and `clipped`, 1 where the
    clipped branch was taken and so no gradient flows. Raises ValueError when 0 < dual_clip <= 1.
    """
    if dual_clip and dual_clip <= 1:
        raise ValueError(f"dual_clip must be above 1, or 0 for off, not {dual_clip}")
    ratio = torch.exp(bounded(logprobs - old_logprobs))
    surrogate = -advantages * ratio
    clamped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(surrogate, clamped)
    clipped = clamped > surrogate
    if dual_clip:
        ceiling = -advantages * dual_clip
        clipped = clipped | ((advantages < 0) & (ceiling < loss))
        loss = torch.where(advantages < 0, torch.minimum(loss, ceiling), loss)
    return loss, {"ratio": ratio.detach(), "clipped": clipped.detach().float()}
