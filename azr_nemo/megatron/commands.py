"""How rank 0 tells the other ranks what to do: a command as JSON, its numbers as tensors, over torch.distributed; nothing is pickled."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

DTYPES = {str(dtype): dtype for dtype in (torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64, torch.bool)}


@dataclass(frozen=True)
class Command:
    """name: what to do. settings: anything JSON holds. tensors: CPU tensors of the dtypes above."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: tuple[Tensor, ...] = ()


Broadcast = Callable[[Tensor], None]  # from rank 0 to all others, in place


def to_all(tensor: Tensor) -> None:
    """To all ranks of the trainer."""
    dist.broadcast(tensor, src=0)


def announce(command: Command, broadcast: Broadcast = to_all) -> None:
    """Rank 0 to all others. Does nothing in a job of one."""
    if broadcast is to_all and dist.get_world_size() == 1:
        return
    described = [{"dtype": str(tensor.dtype), "shape": list(tensor.shape)} for tensor in command.tensors]
    text = json.dumps({"name": command.name, "settings": command.settings, "tensors": described}).encode()
    broadcast(torch.tensor([len(text)]))
    broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    for tensor in command.tensors:
        if tensor.numel():
            broadcast(tensor.contiguous())


def receive(broadcast: Broadcast = to_all) -> Command:
    """The next command, on every rank but 0; waits for it."""
    length = torch.zeros(1, dtype=torch.int64)
    broadcast(length)
    text = torch.empty(int(length), dtype=torch.uint8)
    broadcast(text)
    message = json.loads(text.numpy().tobytes())
    tensors = []
    for described in message["tensors"]:
        tensor = torch.empty(described["shape"], dtype=DTYPES[described["dtype"]])
        if tensor.numel():
            broadcast(tensor)
        tensors.append(tensor)
    return Command(message["name"], message["settings"], tuple(tensors))


def join_ids(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one flat int64 tensor and their lengths."""
    flat = [token for row in rows for token in row]
    return torch.tensor(flat, dtype=torch.int64), torch.tensor([len(row) for row in rows], dtype=torch.int64)


def split_ids(flat: Tensor, lengths: Tensor) -> list[tuple[int, ...]]:
    """Undoes join_ids."""
    return [tuple(part.tolist()) for part in flat.split(lengths.tolist())]
