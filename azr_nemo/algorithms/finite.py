"""What keeps losses and advantages finite: ratios whose logarithm is bounded before `exp`, and rewards that are numbers.

exp of a difference of log-probabilities overflows in float32 from 89 on, and in a sum far earlier; an infinite ratio times an advantage of 0, or
times the 0 that is the gradient of a clip, is not a number, and one such token spoils every weight. A token that the policy makes e^20 times
as likely as before has left every clip range long ago.
"""

from torch import Tensor

BOUND = 20.0  # nats; e^20 = 4.9e8. As verl bounds it


def bounded(log_ratio: Tensor) -> Tensor:
    """The log-ratio within [-BOUND, BOUND], in any shape; inside nothing changes, neither value nor gradient, and outside no gradient flows."""
    return log_ratio.clamp(-BOUND, BOUND)


def require_finite(rewards: Tensor) -> None:
    """Raises ValueError for a reward that is nan or infinite: a comparison with it is false, so it would pass for a group without signal."""
    wrong = (~rewards.isfinite()).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise ValueError(f"the reward of row {row} is {float(rewards[row])}: every reward must be a finite number")
