"""Which tokens may be drawn at all: nucleus (Holtzman et al., arXiv 1904.09751), the k likeliest, and min-p (Nguyen et al., arXiv 2407.01082).

In vLLM's order and with its meaning: min-p against the likeliest token, the k likeliest, then the nucleus of what is left, all of the tempered
distribution. What is left is the distribution that a token is drawn from, and that its log-probability is of.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Truncation(NamedTuple):
    """1, 0 and 0 leave every token in."""

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


WHOLE = Truncation()


def truncated(logits: Tensor, temperature: Tensor, cuts: Sequence[Truncation]) -> Tensor:
    """Logits [rows, vocabulary] with -inf where a row's tokens may not be drawn; the same tensor where every row draws from all of them.

    temperature: [rows]. A row of temperature 0 stays whole: it takes the likeliest token anyway, with its probability among all.
    """
    cut = [row for row, (its, cold) in enumerate(zip(cuts, (temperature == 0).tolist(), strict=True)) if its != WHOLE and not cold]
    if not cut:
        return logits
    rows = torch.tensor(cut, device=logits.device)
    tempered = logits[rows].float() / temperature[rows].float()[:, None]
    sorted_logits, order = tempered.sort(dim=-1, descending=True)
    column = {name: torch.tensor([getattr(cuts[row], name) for row in cut], device=logits.device)[:, None] for name in Truncation._fields}
    places = torch.arange(logits.shape[1], device=logits.device)
    dropped = (sorted_logits - sorted_logits[:, :1]).exp() < column["min_p"]
    dropped |= (column["top_k"] > 0) & (places >= column["top_k"])
    probabilities = sorted_logits.masked_fill(dropped, -torch.inf).softmax(-1)
    # A token belongs to the nucleus when those before it do not fill it yet: the likeliest always does.
    dropped |= probabilities.cumsum(-1) - probabilities >= column["top_p"]
    dropped[:, 0] = False
    out = logits.clone()
    out[rows] = out[rows].masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), -torch.inf)
    return out
