"""A tensor on disk in pieces, of which only the asked-for part is read; every Megatron format is read through this."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from azr_nemo.errors import UserError

Place = tuple[tuple[slice, ...], tuple[slice, ...]]


class Sliceable(Protocol):
    """What gives a tensor for a tuple of slices: a tensor, or a part of a safetensors file."""

    def __getitem__(self, region: tuple[slice, ...]) -> Tensor: ...


@dataclass(frozen=True)
class Chunk:
    """Elements offset to offset + size of a tensor; load opens them."""

    offset: tuple[int, ...]
    size: tuple[int, ...]
    load: Callable[[], Sliceable]


@dataclass
class StoredTensor:
    """origin: the file or folder to name when something is wrong with it."""

    origin: str
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: list[Chunk] = field(default_factory=list)

    def read(self, layer: int | None = None) -> Tensor:
        """All of it, or element `layer` of its first axis. May share memory with a file; copy what is changed. Raises UserError."""
        region = [(0, size) for size in self.shape]
        if layer is not None:
            if not region or layer >= self.shape[0]:
                raise UserError(f"{self.origin}: its tensor {self.key} has shape {self.shape}, so there is no layer {layer} in it")
            region[0] = (layer, layer + 1)
        wanted = tuple(stop - start for start, stop in region)
        whole, filled = None, 0
        for chunk in self.chunks:
            for here, there in _overlap(region, chunk.offset, chunk.size):
                piece = chunk.load()[there]
                if tuple(piece.shape) == wanted:
                    return piece if layer is None else piece[0]
                whole = torch.empty(wanted, dtype=self.dtype) if whole is None else whole
                whole[here] = piece
                filled += piece.numel()
        if whole is None or filled != whole.numel():
            raise UserError(f"{self.origin} is damaged: a part of its tensor {self.key} is missing")
        return whole if layer is None else whole[0]


def _overlap(region: Iterable[tuple[int, int]], offset: tuple[int, ...], size: tuple[int, ...]) -> Iterator[Place]:
    here, there = [], []
    for (start, stop), begin, length in zip(region, offset, size, strict=True):
        low, high = max(start, begin), min(stop, begin + length)
        if low >= high:
            return
        here.append(slice(low - start, high - start))
        there.append(slice(low - begin, high - begin))
    yield tuple(here), tuple(there)
