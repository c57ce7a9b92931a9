"""From the losses of tokens to the loss of a batch: which tokens weigh how much.

    token_mean      sum over i, t of loss[i, t] / number of tokens                    every token alike (DAPO, arXiv 2503.14476; Absolute Zero)
    sequence_mean   mean over i of (sum over t of loss[i, t] / length of i)           every response alike (GRPO, 2402.03300; GSPO)

Under `sequence_mean` a token of a long response weighs less than one of a short response: long wrong answers are punished less per token,
which Dr. GRPO (2503.20783) shows to lengthen them.
"""

import torch
from torch import Tensor

AGGREGATIONS = ("token_mean", "sequence_mean")


def token_weights(mask: Tensor, aggregation: str) -> Tensor:
    """Weights [B, T] for the tokens of a batch with mask [B, T] (1 on tokens that count): sum(weights * losses) / sum(mask) is the loss.

    They are of the whole batch, so micro-batches and data-parallel ranks may sum their tokens apart and divide by the batch's token count. A
    row without tokens is no response. Raises ValueError for an unknown aggregation.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation is one of {', '.join(AGGREGATIONS)}, not {aggregation!r}")
    if aggregation == "token_mean":
        return mask
    lengths = mask.sum(dim=1, keepdim=True)
    responses = torch.count_nonzero(lengths)
    return mask / lengths.clamp(min=1) * mask.sum() / responses.clamp(min=1)
