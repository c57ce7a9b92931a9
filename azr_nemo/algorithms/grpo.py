"""GRPO (arXiv 2402.03300): the answers to one prompt are each other's baseline.

    A[i, t] = (r[i] - mean_p) / (std_p + 1e-6)        over the answers to the prompt p of row i, std unbiased as in verl

A prompt with a single answer has no baseline and gives zeros (verl's code takes its mean as 0 and its deviation as 1, and so passes the bare
reward on).
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import require_finite

EPSILON = 1e-6


def grpo(rewards: Tensor, mask: Tensor, prompts: Tensor) -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T] (1 on response tokens) and prompts [B] (integers, equal for the same prompt).

    Equal rewards give exact zeros. Computed in float64, returned in the rewards' dtype. Raises ValueError for a reward that is not finite.
    """
    require_finite(rewards)
    advantage = torch.zeros_like(rewards, dtype=torch.float64)
    for prompt in prompts.unique():
        rows = prompts == prompt
        r = rewards[rows].double()
        if len(r) > 1 and r.min() < r.max():
            advantage[rows] = (r - r.mean()) / (r.std() + EPSILON)
    return (advantage[:, None] * mask.double()).to(rewards.dtype)
