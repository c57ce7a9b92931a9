"""How Megatron lays out the query, key and value projections in one parameter; everything that reads or writes such a parameter uses this."""

import torch
from torch import Tensor


def fuse_qkv(query: Tensor, key: Tensor, value: Tensor, kv_heads: int) -> Tensor:
    """[heads * d, ...], [kv_heads * d, ...] twice -> [(heads + 2 kv_heads) * d, ...]: for each kv head its query heads, its key, its value."""
    grouped = [part.view(kv_heads, part.size(0) // kv_heads, *part.shape[1:]) for part in (query, key, value)]
    return torch.cat(grouped, 1).flatten(0, 1)


def split_qkv(fused: Tensor, heads: int, kv_heads: int) -> list[Tensor]:
    """The inverse of fuse_qkv: query, key and value, each contiguous."""
    queries, rest = heads // kv_heads, fused.shape[1:]
    head_dim = fused.size(0) // (heads + 2 * kv_heads)
    grouped = fused.view(kv_heads, (queries + 2) * head_dim, *rest)
    return [part.reshape(-1, *rest) for part in grouped.split([queries * head_dim, head_dim, head_dim], 1)]
