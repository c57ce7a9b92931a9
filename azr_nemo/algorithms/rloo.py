"""REINFORCE leave-one-out (arXiv 2402.14740): an answer's baseline is the mean reward of the *other* answers to its prompt.

    A[i, t] = r[i] - mean of r[j], j != i        over the answers to the prompt of row i

So the baseline does not depend on the answer it judges, and the estimate is unbiased.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import require_finite


def rloo(rewards: Tensor, mask: Tensor, prompts: Tensor) -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T] (1 on response tokens) and prompts [B] (integers, equal for the same prompt).

    A prompt with a single answer has no baseline and gives zeros. Computed in float64, returned in the rewards' dtype.
    Raises ValueError for a reward that is not finite.
    """
    require_finite(rewards)
    advantage = torch.zeros_like(rewards, dtype=torch.float64)
    for prompt in prompts.unique():
        rows = prompts == prompt
        r = rewards[rows].double()
        if r.min() < r.max():
            others = (r.sum() - r) / (len(r) - 1)
            advantage[rows] = r - others
    return (advantage[:, None] * mask.double()).to(rewards.dtype)
