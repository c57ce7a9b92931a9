"""How rank 0, which holds the executor and the buffer, and the other ranks talk: JSON one way, token ids back; nothing is pickled."""

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def broadcast(message: Any = None) -> Any:
    """Rank 0's message, whatever JSON holds, on every rank. Collective."""
    device = torch.cuda.current_device()
    text = json.dumps(message).encode() if dist.get_rank() == 0 else b""
    length = torch.tensor([len(text)], dtype=torch.int64, device=device)
    dist.broadcast(length, src=0)
    content = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(int(length), dtype=torch.uint8)
    content = content.to(device)
    dist.broadcast(content, src=0)
    return message if dist.get_rank() == 0 else json.loads(content.cpu().numpy().tobytes())


def gather_rows(rows: list[list[int]]) -> list[list[int]]:
    """Every rank's rows of integers, of any lengths, on every rank, in the order of the ranks. Collective."""
    device = torch.cuda.current_device()
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=device)
    flat = torch.tensor([number for row in rows for number in row], dtype=torch.int64, device=device)
    all_lengths, all_flat = _gather(lengths), _gather(flat)
    found: list[list[int]] = []
    for their_lengths, numbers in zip(all_lengths, all_flat, strict=True):
        found += [part.tolist() for part in numbers.cpu().split(their_lengths.tolist())]
    return found


def _gather(numbers: Tensor) -> list[Tensor]:
    """One-dimensional tensors of different lengths."""
    size = torch.tensor([len(numbers)], dtype=torch.int64, device=numbers.device)
    sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(max(longest, 1), dtype=torch.int64, device=numbers.device)
    padded[: len(numbers)] = numbers
    found = [torch.zeros_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return [part[: int(size)] for part, size in zip(found, sizes, strict=True)]


def gather_columns(columns: Tensor, group: Any) -> list[Tensor]:
    """The tensors [rows, columns] of a group's ranks, all of one shape, in the order of the ranks. Collective."""
    found = [torch.zeros_like(columns) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, columns.contiguous(), group=group)
    return found
