"""Which rows go into which optimizer step, and rows laid end to end in micro-batches without padding; the same on every rank.

Several answers to one prompt may lie behind a single copy of it (Prefix Grouper, arXiv 2506.05433): a block is the tokens that its rows share,
then each row's own, which see the shared ones and themselves. Sixteen answers to a task then cost one prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor


@dataclass
class Blocks(PackedSeqParams):
    """Megatron's "thd" format with blocks in the place of rows. lengths: tokens of each block, which cu_seqlens says on the device. seen: for each
    block which of its tokens [s] see which [s], None: all that are not behind them."""

    lengths: tuple[int, ...] = ()
    seen: tuple[Tensor | None, ...] = ()


@dataclass(frozen=True)
class MicroBatch:
    """Blocks end to end, s tokens in all. tokens: [1, s]; targets: [1, s], the next tokens; mask: [1, s], true where learnt.

    blocks: of each how many tokens its rows share, and how many each row has of its own. rows, times: [n], which row of the whole batch and
    which response position each learnt target is, in the order of mask.
    """

    tokens: Tensor
    targets: Tensor
    mask: Tensor
    blocks: tuple[tuple[int, ...], ...]
    rows: Tensor
    times: Tensor

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each block."""
        return tuple(map(sum, self.blocks))

    @property
    def learnt(self) -> Tensor:
        """The positions [n] of the learnt targets, in the order of rows and times."""
        return self.mask[0].nonzero()[:, 0]

    def positions(self) -> Tensor:
        """Position ids [1, s]: every row counts from 0, and goes on where what it shares ends."""
        return torch.cat(
            [part for shared, *own in self.blocks for part in (torch.arange(shared), *(torch.arange(n) + shared for n in own))]
        )[None]

    def packed(self, device: torch.device) -> Blocks:
        """What tells Megatron where blocks begin, and our attention what is seen in them."""
        starts = torch.tensor([0, *self.lengths]).cumsum(0).int()
        longest = int(self.positions().max()) + 1
        starts = on_device(starts, device)
        seen = tuple(on_device(_seen(block), device) if len(block) > 2 else None for block in self.blocks)
        sizes = {"cu_seqlens_q": starts, "cu_seqlens_kv": starts, "max_seqlen_q": longest, "max_seqlen_kv": longest}
        return Blocks("thd", **sizes, lengths=self.lengths, seen=seen)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU's tensor there, without waiting for what the device still has to do; on a CPU the tensor itself."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


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
    longest_block: int = 0,
) -> list[MicroBatch]:
    """The micro-batches of one data-parallel rank, `share` of `shares`; every row is in exactly one of all shares' micro-batches.

    mask: [B, T], 1 on the response tokens that count. A micro-batch has at most max_tokens tokens, and at most an even share of them,
    unless a single row is longer. At least one is returned: a share with nothing to do gets one without targets, because pipeline stages
    must stay in step. multiple: a row of tokens that nothing is learnt from fills a micro-batch up to a multiple of it, so that sequence
    parallelism can cut it. longest_block: rows of one prompt share it in blocks of up to so many tokens, by default they do not. Raises
    ValueError for a row without a prompt.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a row needs at least one prompt token: the first response token is predicted from it")
    blocks = _blocks(prompts, responses, min(longest_block, max_tokens))
    sizes = {block[0]: _size(block, prompts, responses) for block in blocks}
    most = min(max_tokens, -(-sum(sizes.values()) // shares))
    groups: list[list[list[int]]] = []
    totals: list[int] = []
    for block in sorted(blocks, key=lambda block: (-sizes[block[0]], block[0])):  # first fit, longest first
        size = sizes[block[0]]
        place = next((index for index, total in enumerate(totals) if total + size <= most), None)
        if place is None:
            groups.append([block])
            totals.append(size)
        else:
            groups[place].append(block)
            totals[place] += size
    loads = [0] * shares
    mine = []
    for group, total in zip(groups, totals, strict=True):
        target = loads.index(min(loads))
        loads[target] += total
        if target == share:
            mine.append(group)
    if not mine:
        idle = torch.zeros(1, multiple, dtype=torch.long)
        nothing = torch.zeros(0, dtype=torch.long)
        return [MicroBatch(idle, idle, idle.bool(), ((0, multiple),), nothing, nothing)]
    return [_micro_batch(group, prompts, responses, mask, multiple) for group in mine]


def _blocks(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
    """The rows with a response, those of one prompt together as long as a block has no more than `longest` tokens."""
    blocks: list[list[int]] = []
    latest: dict[tuple[int, ...], list[int]] = {}
    for row, response in enumerate(responses):
        if not response:
            continue
        block = latest.get(tuple(prompts[row]), [])
        if block and _size([*block, row], prompts, responses) <= longest:
            block.append(row)
        else:
            blocks.append([row])
            latest[tuple(prompts[row])] = blocks[-1]
    return blocks


def _size(block: list[int], prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> int:
    """Its tokens: every row begins with the prompt's last one, and a row's last token is only ever a target."""
    return len(prompts[block[0]]) - 1 + sum(len(responses[row]) for row in block)


def _micro_batch(
    group: list[list[int]], prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], mask: Tensor, multiple: int
) -> MicroBatch:
    tokens: list[int] = []
    targets: list[int] = []
    learnt, rows, times = [], [], []
    for block in group:
        prompt = prompts[block[0]]
        tokens += prompt[:-1]
        targets += prompt[1:]
        learnt.append(torch.zeros(len(prompt) - 1, dtype=torch.bool))
        for row in block:
            response = responses[row]
            tokens += [prompt[-1], *response[:-1]]
            targets += response
            learnt.append(mask[row, : len(response)].bool())
            times.append(learnt[-1].nonzero()[:, 0])
            rows.append(torch.full_like(times[-1], row))
    blocks = [(len(prompts[block[0]]) - 1, *(len(responses[row]) for row in block)) for block in group]
    if filler := -len(tokens) % multiple:
        blocks.append((0, filler))
        tokens += [0] * filler
        targets += [0] * filler
        learnt.append(torch.zeros(filler, dtype=torch.bool))
    return MicroBatch(
        tokens=torch.tensor(tokens)[None],
        targets=torch.tensor(targets)[None],
        mask=torch.cat(learnt)[None],
        blocks=tuple(blocks),
        rows=torch.cat(rows),
        times=torch.cat(times),
    )


def _seen(block: tuple[int, ...]) -> Tensor:
    """Which tokens [s] of a block see which [s]: the shared ones (part 0) and those of their own part, up to themselves."""
    part = torch.arange(len(block)).repeat_interleave(torch.tensor(block))
    return ((part[:, None] == part) | (part == 0)).tril()
