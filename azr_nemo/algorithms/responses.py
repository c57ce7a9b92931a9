"""Sums over the tokens of each response, where tokens of many responses lie end to end."""

import torch
from torch import Tensor


def response_sums(values: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
    """For each of n tokens the sum of `values` [n] over its response, and its response's length. responses: [n] integers, equal for the tokens of
    one response, all of which must be here."""
    _, place, lengths = responses.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros_like(lengths, dtype=values.dtype).index_add(0, place, values)
    return sums[place], lengths[place]
