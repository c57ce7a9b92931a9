"""The forward pass: a prompt's prefill and one decode step, equal to `transformers` up to rounding."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from azr_nemo.rollout.torch.packed_weights import Layer, Shape, Weights

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


PREFILL_TOKENS = 8192  # padded tokens of one prefill batch: bounds its activations

# (layer's number, queries [..., heads, head_dim], keys and values [..., kv_heads, head_dim]) -> [..., heads * head_dim]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def prefill(weights: Weights, shape: Shape, prompts: list[tuple[int, ...]]) -> tuple[Tensor, list[Prefix]]:
    """Runs the prompts. Returns the logits of each one's next token, [prompts, vocabulary], and its keys and values.

    Neighbours in the list share a batch, so prompts should come sorted by length.
    """
    logits: list[Tensor] = []
    prefixes: list[Prefix] = []
    first = 0
    while first < len(prompts):
        last, width = first + 1, len(prompts[first])
        while last < len(prompts) and max(width, len(prompts[last])) * (last + 1 - first) <= PREFILL_TOKENS:
            width = max(width, len(prompts[last]))
            last += 1
        chunk_logits, chunk_prefixes = _prefill_chunk(weights, shape, prompts[first:last])
        logits.append(chunk_logits)
        prefixes += chunk_prefixes
        first = last
    return torch.cat(logits), prefixes


def _prefill_chunk(weights: Weights, shape: Shape, prompts: list[tuple[int, ...]]) -> tuple[Tensor, list[Prefix]]:
    lengths = [len(prompt) for prompt in prompts]
    # Padded on the right: under the causal mask padding changes nothing before it, so no mask is needed.
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    ids = ids.to(weights.embedding.device)
    keys: list[Tensor] = []
    values: list[Tensor] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
        keys.append(k)
        values.append(v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2).flatten(2)

    hidden = _forward(weights, shape, ids, torch.arange(ids.shape[1], device=ids.device), attend)
    last = hidden[torch.arange(len(lengths)), torch.tensor(lengths) - 1]
    prefixes = [
        Prefix([k[row, :, :length] for k in keys], [v[row, :, :length] for v in values], length) for row, length in enumerate(lengths)
    ]
    return weights.head(last), prefixes


def decode(weights: Weights, shape: Shape, tokens: Tensor, cache: Cache) -> Tensor:
    """Runs one token a row, [rows] int64, and stores its keys and values. Returns the logits of the next one, [rows, vocabulary]."""
    positions = cache.open_column()
    group = shape.heads // shape.kv_heads

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = cache.write(layer, k, v)
        # The queries that share a key head stand below each other: one product a head of keys, which are then read once.
        q = q.reshape(-1, group, shape.head_dim)
        scores = torch.baddbmm(cache.mask, q, keys.transpose(1, 2), alpha=shape.head_dim**-0.5)
        return torch.bmm(torch.softmax(scores, dim=-1), values).view(len(tokens), -1)

    return weights.head(_forward(weights, shape, tokens, positions, attend))


def _forward(weights: Weights, shape: Shape, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """The decoder over ids [...] at positions that broadcast to them; hidden states [..., hidden] after the last norm."""
    x = weights.embedding[ids]
    angles = positions[:, None].float() * shape.inverse_frequencies.to(positions.device)
    cos, sin = angles.cos(), angles.sin()
    # Rotating x by its angles is x * cos + roll(x) * sin once the signs of the rotated half are in the sines.
    cos = torch.cat([cos, cos], dim=-1).to(x.dtype)[:, None]
    sin = torch.cat([-sin, sin], dim=-1).to(x.dtype)[:, None]
    for number, layer in enumerate(weights.layers):
        x = _layer(layer, number, shape, x, cos, sin, attend)
    return F.rms_norm(x, (shape.hidden,), weights.norm, shape.norm_eps)


def _layer(layer: Layer, number: int, shape: Shape, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
    qkv = layer.qkv(F.rms_norm(x, (shape.hidden,), layer.input_norm, shape.norm_eps)).unflatten(-1, (-1, shape.head_dim))
    qk, v = qkv.split([shape.heads + shape.kv_heads, shape.kv_heads], dim=-2)
    if layer.qk_norm is not None:
        qk = F.rms_norm(qk, (shape.head_dim,), None, shape.norm_eps) * layer.qk_norm
    qk = torch.addcmul(qk * cos, qk.roll(shape.head_dim // 2, dims=-1), sin)
    q, k = qk.split([shape.heads, shape.kv_heads], dim=-2)
    x = x + layer.out(attend(number, q, k, v))
    gate, up = layer.gate_up(F.rms_norm(x, (shape.hidden,), layer.mlp_norm, shape.norm_eps)).chunk(2, dim=-1)
    return x + layer.down(F.silu(gate) * up)
