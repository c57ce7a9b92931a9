"""A policy loss of one's own: REINFORCE (Williams, 1992), without a ratio and without a clip.

loss = -A * logp

azr-nemo train extensions='[examples/loss.py]' optim.loss=reinforce ...
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.losses import LOSSES, Bounds, Moved


def reinforce(tokens: Moved, bounds: Bounds) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each of n response tokens, and the statistics that every loss gives: the ratio to the policy that the update began with, and
    clipped, 1 where a bound stopped a token: here none."""
    with torch.no_grad():
        ratio = torch.exp(tokens.logprobs - tokens.old_logprobs)
    return -tokens.advantages * tokens.logprobs, {"ratio": ratio, "clipped": torch.zeros_like(ratio)}


LOSSES["reinforce"] = reinforce
