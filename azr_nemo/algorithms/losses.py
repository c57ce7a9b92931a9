"""Every policy loss by the name that `optim.loss` gives it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from azr_nemo.algorithms.cispo_loss import cispo_loss
from azr_nemo.algorithms.gspo_loss import gspo_loss
from azr_nemo.algorithms.ppo_loss import ppo_loss


@dataclass(frozen=True)
class Moved:
    """n response tokens under the policy that learns and the one that it began with: logprobs, old_logprobs, advantages [n], and responses [n]
    (integers, equal for the tokens of one response, all of which are here)."""

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    responses: Tensor


@dataclass(frozen=True)
class Bounds:
    """Of the ratio: 1 - low and 1 + high. dual: PPO's bound on the loss of bad tokens, 0 for off."""

    low: float
    high: float
    dual: float = 0.0


# The loss of each token [n], and statistics [n]: ratio and clipped.
Loss = Callable[[Moved, Bounds], tuple[Tensor, dict[str, Tensor]]]

LOSSES: dict[str, Loss] = {
    "ppo": lambda t, b: ppo_loss(t.logprobs, t.old_logprobs, t.advantages, clip_low=b.low, clip_high=b.high, dual_clip=b.dual),
    "gspo": lambda t, b: gspo_loss(t.logprobs, t.old_logprobs, t.advantages, t.responses, clip_low=b.low, clip_high=b.high),
    "cispo": lambda t, b: cispo_loss(t.logprobs, t.old_logprobs, t.advantages, clip_low=b.low, clip_high=b.high),
}
