"""GRPO on two levels, for a model that proposes tasks and solves them.

The inner level is GRPO as it is: the answers to one task are each other's baseline. The outer level compares tasks: a proposal's reward
already sums up what the solver made of it, and proposals answer prompts that differ only in the references they show, so all proposals of
one task type in the step are each other's baseline.

    solver:    A[i, t] = (r[i] - mean_p) / (std_p + 1e-6)        over the answers to the task p
    proposer:  A[i, t] = (r[i] - mean_g) / (std_g + 1e-6)        over the proposals of the task type g
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.grpo import grpo


def hierarchical_grpo(rewards: Tensor, mask: Tensor, prompts: Tensor, groups: Tensor, proposers: Tensor) -> Tensor:
    """Advantages [B, T] from rewards [B], mask [B, T], prompts [B] (integers, equal for the same prompt), groups [B] (integers, one for each
    role and task type) and proposers [B] (bool). Raises ValueError for a reward that is not finite."""
    out = torch.zeros_like(mask, dtype=rewards.dtype)
    for rows, level in ((proposers, groups), (~proposers, prompts)):
        out[rows] = grpo(rewards[rows], mask[rows], level[rows])
    return out
