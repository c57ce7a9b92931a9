"""Weighted REINFORCE (arXiv 2506.01347): right answers weigh less than wrong ones, so that a policy does not give up all but one way to be right.

    A[i] <- weight * A[i]        for A[i] > 0, where more than half of the answers to the task are right

The paper weighs every right answer by 0.1. Here it is those of tasks that are mostly solved: where a right answer is rare the wrong ones around it
are mostly noise.
"""

from torch import Tensor


def lighter_successes(advantages: Tensor, prompts: Tensor, proposers: Tensor, weight: float) -> Tensor:
    """Advantages [B] of solvers' rows with those of easy successes scaled; prompts [B] (integers, equal for the same prompt), proposers [B] (bool)
    stay as they are. An answer counts as right where its advantage is above 0."""
    out = advantages.clone()
    for prompt in prompts[~proposers].unique():
        rows = (prompts == prompt) & ~proposers
        right = rows & (advantages > 0)
        if 2 * int(right.sum()) > int(rows.sum()):
            out[right] *= weight
    return out
