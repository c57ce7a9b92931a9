"""RAFT (arXiv 2304.06767, 2504.11343): right answers alone teach, as in rejection sampling; wrong ones weigh less, or nothing.

    A[i] <- weight * A[i]        for A[i] < 0

With wrong answers pushed down, what takes their place is whatever the policy would have said next, right or not; without them only what was right rises.
"""

from torch import Tensor, where


def lighter_failures(advantages: Tensor, proposers: Tensor, weight: float) -> Tensor:
    """Advantages [B] of solvers' rows with those of failures scaled; proposers' [B] (bool) stay as they are."""
    return where(~proposers & (advantages < 0), advantages * weight, advantages)
