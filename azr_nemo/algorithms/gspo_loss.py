"""Group sequence policy optimisation (GSPO, arXiv 2507.18071): the ratio is that of a whole response, as its reward is.

    s_i       = exp(mean over t of logp[i, t] - logp_old[i, t])                  (normalised by the response's length)
    s[i, t]   = sg(s_i) * exp(logp[i, t] - sg(logp[i, t]))                       (GSPO-token: equal to s_i; sg: no gradient)
    loss      = max(-A * s[i, t], -A * clip(s[i, t], 1 - low, 1 + high))

With one advantage for all tokens of a response, as every estimator here gives, GSPO-token has the values and the gradients of GSPO; in this
form a weight for each token has a meaning too. A response is clipped as a whole or not at all. s_i is a mean, so it strays far less from 1
than a token's ratio: the paper's bounds are 3e-4 and 4e-4, over four mini-batches and with `sequence_mean`.
"""

import torch
from torch import Tensor

from azr_nemo.algorithms.finite import bounded
from azr_nemo.algorithms.responses import response_sums


def gspo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, responses: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss per token [n] and its statistics, as of `ppo_loss`, with s as the ratio.

    logprobs, old_logprobs, advantages: [n] response tokens. responses: [n], integers, equal for the tokens of one response, all of which must
    be here.
    """
    sums, lengths = response_sums((logprobs - old_logprobs).detach(), responses)
    ratio = torch.exp(bounded(sums / lengths + (logprobs - logprobs.detach())))
    surrogate = -advantages * ratio
    clamped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(surrogate, clamped), {"ratio": ratio.detach(), "clipped": (clamped > surrogate).float()}
