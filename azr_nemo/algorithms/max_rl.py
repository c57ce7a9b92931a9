"""MaxRL (arXiv 2602.02710): the answers to one task are weighed as maximum likelihood would, so that the rarer a right answer, the more it teaches.

The gradient of log p(right) is that of p(right) / p(right): the mean over the right answers alone, instead of over all.

    solver:    A[i, t] = (s[i] - mean_p) / mean_p                over the answers to the task p, s = max(r, 0): what is not right is 0
    proposer:  as hierarchical GRPO                              a proposal's reward is no probability of anything

Where none is right, as where all are, there is nothing to compare and all are 0. How badly a wrong answer is wrong makes no difference.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import require_finite
from azr_nemo.algorithms.grpo import grpo


def max_rl(rewards: Tensor, mask: Tensor, prompts: Tensor, groups: Tensor, proposers: Tensor) -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T], prompts [B] (integers, equal for the same prompt), groups [B] (integers, one for each
    role and task type) and proposers [B] (bool). Raises ValueError for a reward that is not finite."""
    require_finite(rewards)
    success = rewards.double().clamp(min=0)
    advantage = torch.zeros_like(success)
    for prompt in prompts[~proposers].unique():
        rows = (prompts == prompt) & ~proposers
        s = success[rows]
        if s.min() < s.max():
            advantage[rows] = (s - s.mean()) / s.mean()
    out = (advantage[:, None] * mask.double()).to(rewards.dtype)
    out[proposers] = grpo(rewards[proposers], mask[proposers], groups[proposers])
    return out
