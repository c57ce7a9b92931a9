"""Truncated importance sampling of whole responses, between the policy that drew them and the one that learns from them.

    weight[i, t] = min(prod over t of p_trainer(token) / p_rollout(token), cap)          (the same for all tokens of response i)

A response's reward is of all its tokens, so this is the weight that makes the expectation right; a token's own ratio leaves out what the earlier
tokens did to the state that it was drawn in. The price is variance, which grows with the length (https://richardli.xyz/rl-collapse, part 3;
IMPALA, arXiv 1802.01561, truncates). For responses of thousands of tokens it is nearly always 0 or the cap: see importance_rejection.py.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import bounded
from azr_nemo.algorithms.responses import response_sums


def sequence_importance_weights(old_logprobs: Tensor, rollout_logprobs: Tensor, responses: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Weights [n] and which of them are capped (1 or 0), without gradients.

    old_logprobs, rollout_logprobs: [n] response tokens, as of `importance_weights`. responses: [n] integers, equal for the tokens of one response,
    all of which must be here. Raises ValueError unless cap is above 0.
    """
    if cap <= 0:
        raise ValueError(f"cap must be above 0, not {cap}")
    sums, _ = response_sums(old_logprobs - rollout_logprobs, responses)
    weight = torch.exp(bounded(sums)).detach()
    return weight.clamp(max=cap), (weight > cap).float()
