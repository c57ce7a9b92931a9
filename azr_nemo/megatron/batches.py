"""Rows of token ids packed into padded micro-batches, the same on every rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """b right-padded rows of s tokens. tokens: [b, s]; targets: [b, s], the next tokens; mask: [b, s], true where the target is learnt.

    rows, times: [n], which row of the whole batch and which response position each learnt target is, in the order in which the model
    returns its scores (that of `mask.t().nonzero()`).
    """

    tokens: Tensor
    targets: Tensor
    mask: Tensor
    rows: Tensor
    times: Tensor

    def positions(self) -> Tensor:
        """Position ids [b, s]."""
        return torch.arange(self.tokens.size(1), device=self.tokens.device).expand_as(self.tokens)


def pack(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], mask: Tensor, max_tokens: int, share: int = 0, shares: int = 1
) -> list[MicroBatch]:
    """The micro-batches of one data-parallel rank, `share` of `shares`; every row is in exactly one of all shares' micro-batches.

    mask: [B, T], 1 on the response tokens that count. Rows are sorted by length, so a micro-batch (rows x longest row, at most max_tokens
    unless a single row is longer) holds little padding; micro-batches are dealt to shares by size. At least one is returned: a share with
    nothing to do gets one without targets, because pipeline stages must stay in step. Raises ValueError for a row without a prompt.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a row needs at least one prompt token: the first response token is predicted from it")
    # The last token of a row is only ever a target.
    lengths = [len(prompt) + len(response) - 1 for prompt, response in zip(prompts, responses, strict=True)]
    order = sorted((row for row in range(len(lengths)) if responses[row]), key=lambda row: (-lengths[row], row))
    groups: list[list[int]] = []
    for row in order:
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    loads = [0] * shares
    mine = []
    for group in groups:
        target = loads.index(min(loads))
        loads[target] += lengths[group[0]] * len(group)
        if target == share:
            mine.append(group)
    if not mine:
        one = torch.zeros(1, 1, dtype=torch.long)
        nothing = torch.zeros(0, dtype=torch.long)
        return [MicroBatch(one, one, one.bool(), nothing, nothing)]
    return [_micro_batch(group, prompts, responses, mask) for group in mine]


def _micro_batch(group: list[int], prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], mask: Tensor) -> MicroBatch:
    width = max(len(prompts[row]) + len(responses[row]) for row in group) - 1
    tokens = torch.zeros(len(group), width, dtype=torch.long)
    targets = torch.zeros_like(tokens)
    learnt = torch.zeros_like(tokens, dtype=torch.bool)
    starts = torch.tensor([len(prompts[row]) - 1 for row in group])
    for place, row in enumerate(group):
        ids = torch.tensor([*prompts[row], *responses[row]])
        tokens[place, : len(ids) - 1] = ids[:-1]
        targets[place, : len(ids) - 1] = ids[1:]
        learnt[place, starts[place] : len(ids) - 1] = mask[row, : len(responses[row])].bool()
    where, place = learnt.t().nonzero(as_tuple=True)
    return MicroBatch(tokens, targets, learnt, torch.tensor(group)[place], where - starts[place])
