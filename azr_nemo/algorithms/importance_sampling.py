"""Truncated importance sampling (Ionides 2008) between the engine that drew the tokens and the trainer that learns from them.

    weight = min(p_trainer(token) / p_rollout(token), cap)

Both engines have the same weights, yet other kernels, and another precision, give other probabilities: tokens are drawn from a policy that is
not quite the one whose gradient is taken. Multiplied with a token's loss the weight takes that back, and the cap bounds its variance
(https://fengyao.notion.site/off-policy-rl; IMPALA, arXiv 1802.01561, truncates so too). It is apart from the ratio that a loss clips, which is
between the trainer's policy before and after its own steps.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import bounded


def importance_weights(old_logprobs: Tensor, rollout_logprobs: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Weights and which of them are capped (1 or 0), in the shape of the inputs, without gradients.

    old_logprobs: the trainer's, before its first step on these tokens. Raises ValueError unless cap is above 0.
    """
    if cap <= 0:
        raise ValueError(f"cap must be above 0, not {cap}")
    weight = torch.exp(bounded(old_logprobs - rollout_logprobs)).detach()
    return weight.clamp(max=cap), (weight > cap).float()
