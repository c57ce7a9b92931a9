"""An advantage estimator of one's own: answers to one prompt against their median, which one lucky answer does not move.

A[i, t] = r[i] - median_p        over the answers to the prompt p of row i; a single answer is its own median and gives 0

azr-nemo train extensions='[examples/estimator.py]' advantage.name=median selfplay.solve_samples=4 ...
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.estimators import ESTIMATORS, Estimator
from azr_nemo.algorithms.finite import require_finite


def median_baseline(rewards: Tensor, mask: Tensor, prompts: Tensor) -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T] (1 on response tokens) and prompts [B] (integers, equal for the same prompt)."""
    require_finite(rewards)
    advantage = torch.zeros_like(rewards)
    for prompt in prompts.unique():
        rows = prompts == prompt
        advantage[rows] = rewards[rows] - rewards[rows].quantile(0.5)
    return advantage[:, None] * mask


# What an estimator is given: the rows, the weighting of tokens, a moving average's decay, and its baselines, which it returns.
ESTIMATORS["median"] = Estimator(lambda r, _, __, before: (median_baseline(r.rewards, r.mask, r.prompts), before), answers=True)
