"""Which rows go into which optimizer step, and rows laid end to end in micro-batches without padding; the same on every rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """Rows of `lengths` tokens end to end, s in all. tokens: [1, s]; targets: [1, s], the next tokens; mask: [1, s], true where learnt.

    rows, times: [n], which row of the whole batch and which response position each learnt target is, in the order of mask.
    """

    tokens: Tensor
    targets: Tensor
    mask: Tensor
    lengths: tuple[int, ...]
    rows: Tensor
    times: Tensor

    def positions(self) -> Tensor:
        """Position ids [1, s]: every row counts from 0."""
        return torch.cat([torch.arange(length) for length in self.lengths])[None]

    def packed(self, device: torch.device) -> PackedSeqParams:
        """What tells Megatron where rows begin: its "thd" format."""
        starts = torch.tensor([0, *self.lengths]).cumsum(0).to(device, torch.int32)
        longest = max(self.lengths)
        return PackedSeqParams("thd", cu_seqlens_q=starts, cu_seqlens_kv=starts, max_seqlen_q=longest, max_seqlen_kv=longest)


def mini_batches(rows: int, count: int, seed: int) -> list[Tensor]:
    """The numbers 0 .. rows - 1, shuffled and dealt to `count` optimizer steps, or to as many as there are rows; sizes differ by one at most."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(max(1, min(count, rows))))


def pack(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    mask: Tensor,
    max_tokens: int,
    share: int = 0,
    shares: int = 1,
    multiple: int = 1,
) -> list[MicroBatch]:
    """The micro-batches of one data-parallel rank, `share` of `shares`; every row is in exactly one of all shares' micro-batches.

    mask: [B, T], 1 on the response tokens that count. A micro-batch has at most max_tokens tokens, and at most an even share of them,
    unless a single row is longer. At least one is returned: a share with nothing to do gets one without targets, because pipeline stages
    must stay in step. multiple: a row of tokens that nothing is learnt from fills a micro-batch up to a multiple of it, so that sequence
    parallelism can cut it. Raises ValueError for a row without a prompt.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a row needs at least one prompt token: the first response token is predicted from it")
    # The last token of a row is only ever a target.
    lengths = [len(prompt) + len(response) - 1 for prompt, response in zip(prompts, responses, strict=True)]
    order = sorted((row for row in range(len(lengths)) if responses[row]), key=lambda row: (-lengths[row], row))
    most = min(max_tokens, -(-sum(lengths[row] for row in order) // shares))
    groups: list[list[int]] = []
    sizes: list[int] = []
    for row in order:  # first fit, longest first
        place = next((index for index, size in enumerate(sizes) if size + lengths[row] <= most), None)
        if place is None:
            groups.append([row])
            sizes.append(lengths[row])
        else:
            groups[place].append(row)
            sizes[place] += lengths[row]
    loads = [0] * shares
    mine = []
    for group, size in zip(groups, sizes, strict=True):
        target = loads.index(min(loads))
        loads[target] += size
        if target == share:
            mine.append(group)
    if not mine:
        idle = torch.zeros(1, multiple, dtype=torch.long)
        nothing = torch.zeros(0, dtype=torch.long)
        return [MicroBatch(idle, idle, idle.bool(), (multiple,), nothing, nothing)]
    return [_micro_batch(group, prompts, responses, mask, multiple) for group in mine]


def _micro_batch(
    group: list[int], prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], mask: Tensor, multiple: int
) -> MicroBatch:
    tokens, targets, learnt, rows, times = [], [], [], [], []
    for row in group:
        ids = torch.tensor([*prompts[row], *responses[row]])
        counts = mask[row, : len(responses[row])].bool()
        tokens.append(ids[:-1])
        targets.append(ids[1:])
        learnt.append(torch.cat([counts.new_zeros(len(prompts[row]) - 1), counts]))
        times.append(counts.nonzero()[:, 0])
        rows.append(torch.full_like(times[-1], row))
    if filler := -sum(map(len, tokens)) % multiple:
        tokens.append(torch.zeros(filler, dtype=tokens[0].dtype))
        targets.append(tokens[-1])
        learnt.append(tokens[-1].bool())
    lengths = tuple(len(ids) for ids in tokens)
    return MicroBatch(
        tokens=torch.cat(tokens)[None],
        targets=torch.cat(targets)[None],
        mask=torch.cat(learnt)[None],
        lengths=lengths,
        rows=torch.cat(rows),
        times=torch.cat(times),
    )
