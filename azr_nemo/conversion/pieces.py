"""The tensors of a model as Megatron names and stacks them, and the Hugging Face tensors in each.

megatron-core stores a decoder's layers as one tensor a parameter, [layers, ...], whatever the parallel layout was; gate and up lie one after
the other, query, key and value by kv head (fusing.py). This project's checkpoints and NeMo's use these names, NeMo with a prefix.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from azr_nemo.megatron.architecture import Architecture
from azr_nemo.megatron.weight_stream import fuse_qkv, split_qkv

EMBEDDING, HEAD = "embedding.word_embeddings.weight", "output_layer.weight"
LAYERS = "decoder.layers."


@dataclass(frozen=True)
class Piece:
    """One parameter of one layer, or of none.

    key: its global tensor. alias: what other layer specifications call that. layer: its index on the tensor's first axis. shape: without
    that axis and without a padded vocabulary. names: the Hugging Face tensors in it and their shapes. fuse, split: between the two.
    """

    key: str
    alias: str | None
    layer: int | None
    shape: tuple[int, ...]
    names: dict[str, tuple[int, ...]]
    fuse: Callable[[list[Tensor]], Tensor]
    split: Callable[[Tensor], list[Tensor]]


def pieces(a: Architecture) -> list[Piece]:
    """Every parameter of the model, in the order of the layers. A tied model has no output layer of its own."""
    found = [_plain(EMBEDDING, "model.embed_tokens.weight", (a.vocab, a.hidden))]
    for layer in range(a.layers):
        found += _layer(a, layer)
    found.append(_plain("decoder.final_layernorm.weight", "model.norm.weight", (a.hidden,)))
    if not a.tied:
        found.append(_plain(HEAD, "lm_head.weight", (a.vocab, a.hidden)))
    return found


def _layer(a: Architecture, layer: int) -> Iterator[Piece]:
    prefix = f"model.layers.{layer}."
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    of_attention, of_mlp = LAYERS + "self_attention.", LAYERS + "mlp."
    norm, alias = of_attention + "linear_qkv.layer_norm_weight", LAYERS + "input_layernorm.weight"
    yield _plain(norm, prefix + "input_layernorm.weight", (a.hidden,), layer, alias)
    for kind in ("weight", "bias") if a.qkv_bias else ("weight",):
        yield _qkv(a, f"{of_attention}linear_qkv.{kind}", attention, kind, layer)
    if a.qk_norm:
        for which in "qk":
            yield _plain(f"{of_attention}{which}_layernorm.weight", f"{attention}{which}_norm.weight", (a.head_dim,), layer)
    yield _plain(of_attention + "linear_proj.weight", attention + "o_proj.weight", (a.hidden, a.heads * a.head_dim), layer)
    norm, alias = of_mlp + "linear_fc1.layer_norm_weight", LAYERS + "pre_mlp_layernorm.weight"
    yield _plain(norm, prefix + "post_attention_layernorm.weight", (a.hidden,), layer, alias)
    gate_up: dict[str, tuple[int, ...]] = {f"{mlp}{which}_proj.weight": (a.ffn, a.hidden) for which in ("gate", "up")}
    yield Piece(of_mlp + "linear_fc1.weight", None, layer, (2 * a.ffn, a.hidden), gate_up, torch.cat, lambda fused: list(fused.chunk(2)))
    yield _plain(of_mlp + "linear_fc2.weight", mlp + "down_proj.weight", (a.hidden, a.ffn), layer)


def _plain(key: str, name: str, shape: tuple[int, ...], layer: int | None = None, alias: str | None = None) -> Piece:
    return Piece(key, alias, layer, shape, {name: shape}, lambda parts: parts[0], lambda full: [full])


def _qkv(a: Architecture, key: str, attention: str, kind: str, layer: int) -> Piece:
    rest = (a.hidden,) if kind == "weight" else ()
    heads = {"q": a.heads, "k": a.kv_heads, "v": a.kv_heads}
    return Piece(
        key,
        None,
        layer,
        ((a.heads + 2 * a.kv_heads) * a.head_dim, *rest),
        {f"{attention}{which}_proj.{kind}": (count * a.head_dim, *rest) for which, count in heads.items()},
        lambda parts: fuse_qkv(parts[0], parts[1], parts[2], a.kv_heads),
        lambda full: split_qkv(full, a.heads, a.kv_heads),
    )
