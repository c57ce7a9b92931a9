"""Task-relative REINFORCE++ (Absolute Zero, arXiv 2505.03335, section 3.3.4): one baseline for each (role, task type) group.

REINFORCE++ whitens the returns of a whole batch. Absolute Zero's batch mixes six kinds of rows whose rewards live on different scales, so
each kind is whitened on its own: an estimate between the per-question baseline of GRPO and one global baseline.

    A[i, t] = (r[i] - mean_g) * rsqrt(var_g + 1e-8)        for the group g of row i

What the published code does and the paper does not say: the mean and the unbiased variance are taken over response *tokens*, so a long
answer weighs more than a short one. `weighting="sequence"` counts each row once instead.
"""

import torch
from torch import Tensor

EPSILON = 1e-8  # of the published code (verl's masked_whiten)


def trr_plus_plus(rewards: Tensor, mask: Tensor, groups: Tensor, weighting: str = "token") -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T] (1 on response tokens) and groups [B] (integers).

    A group of one row, or one whose rewards are all equal, carries no signal and gives zeros. Computed in float64, returned in the
    rewards' dtype. Raises ValueError for an unknown weighting.
    """
    if weighting not in ("token", "sequence"):
        raise ValueError(f"weighting is 'token' or 'sequence', not {weighting!r}")
    reward = rewards.double()
    tokens = mask.double().sum(dim=1)
    weight = tokens if weighting == "token" else (tokens > 0).double()
    scale = torch.zeros_like(reward)
    for group in groups.unique():
        rows = (groups == group) & (tokens > 0)
        r, w = reward[rows], weight[rows]
        if len(r) < 2 or r.min() == r.max():
            continue
        mean = (w * r).sum() / w.sum()
        variance = (w * (r - mean) ** 2).sum() / (w.sum() - 1)
        scale[rows] = (r - mean) * torch.rsqrt(variance + EPSILON)
    return (scale[:, None] * mask.double()).to(rewards.dtype)
