"""Role-conditioned advantage estimation (SPIRAL, arXiv 2506.24119): each role and task type has a slowly moving average of its rewards as baseline.

    b_g <- decay * b_g + (1 - decay) * r[i]        for the rows of the group g, one after another
    A[i, t] = r[i] - b_g

Unlike the others it looks beyond the step: a step in which everything is right still teaches while the average is lower. The first step has
nothing to look back on and starts from the mean of its own rewards (the published code starts from 0, which for penalties of -1 makes
every first advantage negative).
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import require_finite

DECAY = 0.95  # the paper's


def role_baseline(
    rewards: Tensor, mask: Tensor, groups: Tensor, baselines: dict[int, float], decay: float = DECAY
) -> tuple[Tensor, dict[int, float]]:
    """Advantages [B, T] and the baselines after these rows, by group, from rewards [B], mask [B, T], groups [B] (integers) and the baselines
    before. Rows are taken in their order. Raises ValueError unless 0 <= decay < 1, and for a reward that is not finite."""
    if not 0 <= decay < 1:
        raise ValueError(f"decay lies in [0, 1), not at {decay}")
    require_finite(rewards)
    after = dict(baselines)
    advantage = torch.zeros_like(rewards, dtype=torch.float64)
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero()[:, 0]
        r = rewards[rows].double()
        baseline = after.get(group, float(r.mean()))
        for row, reward in zip(rows.tolist(), r.tolist(), strict=True):
            baseline = decay * baseline + (1 - decay) * reward
            advantage[row] = reward - baseline
        after[group] = baseline
    return (advantage[:, None] * mask.double()).to(rewards.dtype), after
