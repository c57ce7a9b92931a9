"""The keys and values of the rows being decoded, kept contiguous and right-aligned, and rebuilt when rows leave or join.

All rows write their next token into the same column, so a step is one assignment a layer. A row's first token stands wherever its length
puts it; what lies before is masked. The matrix kernels copy any operand that is not contiguous, so a step multiplies with the whole cache
(the columns not written yet are masked too) and the cache grows by whole chunks of columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 64  # columns; more would be computed in vain, fewer copied more often


@dataclass(frozen=True)
class Prefix:
    """Keys and values of one prompt, a tensor [kv_heads, tokens, head_dim] a layer."""

    keys: list[Tensor]
    values: list[Tensor]
    tokens: int


class Cache:
    """keys, values: a tensor [rows * kv_heads, capacity, head_dim] a layer. mask: what is added to the scores, [rows * kv_heads, 1, capacity]."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device):
        self._kv_heads = kv_heads
        self._head_dim = head_dim
        self._options = {"dtype": dtype, "device": device}
        self.keys = [torch.zeros(0, 0, head_dim, **self._options) for _ in range(layers)]
        self.values = list(self.keys)
        self.mask = torch.zeros(0, 1, 0, **self._options)
        self.lengths: list[int] = []  # tokens of each row
        self.column = 0  # where all rows write next

    @property
    def capacity(self) -> int:
        return self.mask.shape[2]

    def rebuild(self, keep: list[int], joining: list[tuple[Prefix, int]]) -> None:
        """Keeps these rows, in this order, appends `copies` rows for each (prefix, copies) that joins, and leaves room to write."""
        lengths = [self.lengths[row] for row in keep] + [prefix.tokens for prefix, copies in joining for _ in range(copies)]
        column = max(lengths, default=0)
        capacity = (column // CHUNK + 1) * CHUNK
        # Columns that hold a kept token; those before them belonged to longer rows that have left.
        kept_columns = max(lengths[: len(keep)], default=0)
        for layer in range(len(self.keys)):
            for store, parts in (
                (self.keys, [(prefix.keys[layer], copies) for prefix, copies in joining]),
                (self.values, [(prefix.values[layer], copies) for prefix, copies in joining]),
            ):
                new = torch.zeros(len(lengths), self._kv_heads, capacity, self._head_dim, **self._options)
                if keep:
                    old = store[layer].view(len(self.lengths), self._kv_heads, -1, self._head_dim)
                    old = old[:, :, self.column - kept_columns : self.column]
                    new[: len(keep), :, column - kept_columns : column] = old if len(keep) == len(old) else old[keep]
                row = len(keep)
                for part, copies in parts:
                    new[row : row + copies, :, column - part.shape[1] : column] = part
                    row += copies
                store[layer] = new.flatten(0, 1)
        position = torch.arange(capacity, device=self._options["device"])
        first = column - torch.tensor(lengths, dtype=torch.long, device=position.device)
        visible = (position >= first[:, None]) & (position < column)
        mask = torch.zeros(visible.shape, **self._options).masked_fill_(~visible, -torch.inf)
        self.mask = mask.repeat_interleave(self._kv_heads, dim=0).unsqueeze(1)
        self.lengths = lengths
        self.column = column

    def open_column(self) -> Tensor:
        """Makes the next column visible to all rows. Returns the position of its token in each row, [rows] int64."""
        self.mask[:, :, self.column] = 0
        return torch.tensor(self.lengths, device=self.mask.device)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores [rows, kv_heads, head_dim] of the open column. Returns all keys and values of the layer."""
        shape = (len(self.lengths), self._kv_heads, self.capacity, self._head_dim)
        self.keys[layer].view(shape)[:, :, self.column] = keys
        self.values[layer].view(shape)[:, :, self.column] = values
        return self.keys[layer], self.values[layer]

    def close_column(self) -> bool:
        """Ends the step. Returns whether the cache is full, so that it must be rebuilt before the next one."""
        self.lengths = [length + 1 for length in self.lengths]
        self.column += 1
        return self.column == self.capacity
