"""Task-relative REINFORCE++ (Absolute Zero, arXiv 2505.03335, section 3.3.4): one baseline for each (role, task type) group.

REINFORCE++ whitens the returns of a whole batch. Absolute Zero's batch mixes six kinds of rows whose rewards live on different scales, so
each kind is whitened on its own: an estimate between the per-question baseline of GRPO and one global baseline.

    A[i, t] = (r[i] - mean_g) * rsqrt(var_g + 1e-8)        for the group g of row i
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.reinforce_plus_plus import reinforce_plus_plus


def trr_plus_plus(rewards: Tensor, mask: Tensor, groups: Tensor, weighting: str = "token") -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T] (1 on response tokens) and groups [B] (integers).

    A group of one row, or one whose rewards are all equal, carries no signal and gives zeros. weighting: see reinforce_plus_plus; the
    published code's is `token`, the paper does not say. Raises ValueError for a reward that is not finite.
    """
    out = torch.zeros_like(mask, dtype=rewards.dtype)
    for group in groups.unique():
        rows = groups == group
        out[rows] = reinforce_plus_plus(rewards[rows], mask[rows], weighting)
    return out
