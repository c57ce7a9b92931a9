"""Dr. GRPO (arXiv 2503.20783): GRPO without its two biases.

    A[i, t] = r[i] - mean_p        over the answers to the prompt p of row i

Dividing by the deviation favours prompts that are nearly always or nearly never solved; here it is left out. The other bias, dividing each
answer's loss by its own length, is a matter of the loss: `optim.aggregation=token_mean` has none.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import require_finite


def dr_grpo(rewards: Tensor, mask: Tensor, prompts: Tensor) -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T] (1 on response tokens) and prompts [B] (integers, equal for the same prompt).

    Equal rewards give exact zeros. Computed in float64, returned in the rewards' dtype. Raises ValueError for a reward that is not finite.
    """
    require_finite(rewards)
    advantage = torch.zeros_like(rewards, dtype=torch.float64)
    for prompt in prompts.unique():
        rows = prompts == prompt
        r = rewards[rows].double()
        if r.min() < r.max():
            advantage[rows] = r - r.mean()
    return (advantage[:, None] * mask.double()).to(rewards.dtype)
