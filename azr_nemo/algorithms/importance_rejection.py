"""Masked importance sampling: what lies outside a band of ratios between trainer and sampler is not learnt from at all.

    r = p_trainer / p_rollout          token       of the token
                                       sequence    of the response: product over its tokens
                                       geometric   of the response: geometric mean of its tokens'
    kept = low <= r <= high

Truncation keeps a bounded gradient of tokens that the trainer would hardly have drawn; a hard band throws them away (IcePop, ring-1t,
arXiv 2510.18855, by token; https://richardli.xyz/rl-collapse, part 3, by response, whose geometric mean does not depend on the length). The
number of tokens that a loss is a mean over does not change: what is thrown away weighs 0.
"""

import math

from torch import Tensor

from azr_nemo.algorithms.finite import bounded
from azr_nemo.algorithms.responses import response_sums

LEVELS = ("token", "sequence", "geometric")


def kept_within(old_logprobs: Tensor, rollout_logprobs: Tensor, responses: Tensor, level: str, low: float, high: float) -> Tensor:
    """1 for each of n tokens that is learnt from, 0 for the others. Arguments as of `sequence_importance_weights`.

    Raises ValueError for another level, and unless 0 < low <= high.
    """
    if level not in LEVELS or not 0 < low <= high:
        raise ValueError(f"level is one of {', '.join(LEVELS)} and 0 < low <= high, not {level!r}, {low} and {high}")
    ratio = bounded(old_logprobs - rollout_logprobs).detach()
    if level != "token":
        ratio, lengths = response_sums(ratio, responses)
        if level == "geometric":
            ratio = ratio / lengths
    return ((ratio >= math.log(low)) & (ratio <= math.log(high))).float()
