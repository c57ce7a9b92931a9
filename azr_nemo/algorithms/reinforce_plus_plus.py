"""REINFORCE++ (arXiv 2501.03262): no critic and no groups, the rewards of the whole batch are whitened.

    A[i, t] = (r[i] - mean) * rsqrt(var + 1e-8)

As in verl's `masked_whiten`, the mean and the unbiased variance are taken over response *tokens*, so a long answer weighs more than a short
one; `weighting="sequence"` counts each row once instead.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import require_finite

EPSILON = 1e-8


def reinforce_plus_plus(rewards: Tensor, mask: Tensor, weighting: str = "token") -> Tensor:
    """Advantages [B, T] from rewards [B] and mask [B, T] (1 on response tokens).

    A batch of one row, or one whose rewards are all equal, carries no signal and gives zeros. Computed in float64, returned in the rewards'
    dtype. Raises ValueError for an unknown weighting and for a reward that is not finite.
    """
    if weighting not in ("token", "sequence"):
        raise ValueError(f"weighting is 'token' or 'sequence', not {weighting!r}")
    require_finite(rewards)
    reward, tokens = rewards.double(), mask.double().sum(dim=1)
    rows = tokens > 0
    r, weight = reward[rows], tokens[rows] if weighting == "token" else torch.ones_like(tokens[rows])
    scale = torch.zeros_like(reward)
    if len(r) > 1 and r.min() < r.max():
        mean = (weight * r).sum() / weight.sum()
        variance = (weight * (r - mean) ** 2).sum() / (weight.sum() - 1)
        scale[rows] = (r - mean) * torch.rsqrt(variance + EPSILON)
    return (scale[:, None] * mask.double()).to(rewards.dtype)
