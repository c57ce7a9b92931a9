"""The weight stream: Megatron's sliced, fused parameters as full tensors under Hugging Face names, one at a time, and back.

Every user of the weights outside the trainer reads this stream (refitting the rollout engine, exporting, comparing), so none of them knows
of tensor or pipeline parallelism. Megatron fuses q, k and v per kv head and gate with up; both are undone here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import LINEARS, Architecture, read_architecture
from azr_nemo.megatron.huggingface import EMBEDDING, HEAD
from azr_nemo.megatron.model import bare


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


class Sliceable(Protocol):
    """A tensor, or one in a file that is read where it is indexed."""

    @property
    def shape(self) -> Any: ...

    def __getitem__(self, index: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class _Piece:
    """One Megatron parameter and the Hugging Face tensors in it.

    stage: the pipeline stage that owns it. parameter: this rank's slice, None on other stages. dim: the axis that tensor parallelism cuts, of
    every Hugging Face tensor in it into equal parts, None where every rank holds all of it. fuse: from one rank's parts of the Hugging Face tensors
    to its slice. split: from the fused, uncut parameter of shape `shape` to the tensors.
    """

    shapes: dict[str, tuple[int, ...]]
    stage: int
    parameter: Tensor | None
    shape: tuple[int, ...]
    dim: int | None
    fuse: Callable[[list[Tensor]], Tensor]
    split: Callable[[Tensor], list[Tensor]]


def export_weights(model: torch.nn.Module, config: PretrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, full tensor) in the model's dtype, in the order of the layers, on every rank.

    Collective: all ranks must run it to its end. A tensor may share memory with the model: copy what outlives the next one. A tied model
    has no lm_head.weight, as in its Hugging Face file.
    """
    gpt = bare(model)
    tensor_group = parallel_state.get_tensor_model_parallel_group()
    pipeline_ranks = dist.get_process_group_ranks(parallel_state.get_pipeline_model_parallel_group())
    device = next(gpt.parameters()).device
    for piece in _pieces(model, config):
        if piece.parameter is not None:
            full = piece.parameter.detach().contiguous()
        else:
            shape = [n // tensor_group.size() if axis == piece.dim else n for axis, n in enumerate(piece.shape)]
            full = torch.empty(shape, dtype=gpt.config.params_dtype, device=device)
        # Slices first: between stages each tensor-parallel rank sends its own, and the nodes' links carry a tensor once.
        if len(pipeline_ranks) > 1:
            dist.broadcast(full, src=pipeline_ranks[piece.stage], group=parallel_state.get_pipeline_model_parallel_group())
        if piece.dim is not None and tensor_group.size() > 1:
            slices = full.new_empty(tensor_group.size() * full.size(0), *full.shape[1:])
            dist.all_gather_into_tensor(slices, full, group=tensor_group)
            full = slices if piece.dim == 0 else torch.cat(slices.chunk(tensor_group.size()), piece.dim)
        yield from zip(piece.shapes, piece.split(full), strict=True)


@torch.no_grad()
def import_weights(model: torch.nn.Module, config: PretrainedConfig, get: Callable[[str], Sliceable]) -> set[str]:
    """Sets every parameter of this rank from `get(hugging_face_name)`, the full tensor or what reads parts of it: only this rank's are asked for.

    Returns the names of all that the model is made of, those of other ranks too.

    Raises UserError for a tensor of the wrong shape; what `get` raises for a missing one passes through.
    """
    size, rank = parallel_state.get_tensor_model_parallel_world_size(), parallel_state.get_tensor_model_parallel_rank()
    pieces = list(_pieces(model, config, importing=True))
    mine = [piece for piece in pieces if piece.parameter is not None]
    progress.expect(len(mine), "weights")
    for piece in mine:
        assert piece.parameter is not None
        parts = []
        for name, shape in piece.shapes.items():
            tensor = get(name)
            if tuple(tensor.shape) != shape:
                raise UserError(f"the model's tensor {name} has shape {tuple(tensor.shape)}, but its config.json implies {shape}")
            # A vocabulary's last part is shorter where padding fills it up.
            each = -(-shape[piece.dim] // size) if piece.dim is not None else 0
            parts.append(
                tensor[tuple(slice(rank * each, (rank + 1) * each) if axis == piece.dim else slice(None) for axis in range(len(shape)))]
            )
        piece.parameter.copy_(piece.fuse(parts))
        progress.advance()
    return {name for piece in pieces for name in piece.shapes}


def _pieces(model: torch.nn.Module, config: PretrainedConfig, importing: bool = False) -> Iterator[_Piece]:
    gpt, a = bare(model), read_architecture(config)
    size = parallel_state.get_tensor_model_parallel_world_size()
    stages = parallel_state.get_pipeline_model_parallel_world_size()
    mine = {layer.layer_number - 1: layer for layer in gpt.decoder.layers}

    yield _vocabulary(a, size, EMBEDDING, 0, gpt.embedding.word_embeddings.weight if gpt.pre_process else None)
    for index in range(a.layers):
        yield from _layer(a, size, index, index * stages // a.layers, mine.get(index), importing)
    last = stages - 1
    yield _plain("model.norm.weight", (a.hidden,), last, None, gpt.decoder.final_layernorm.weight if gpt.post_process else None)
    if not a.tied:
        yield _vocabulary(a, size, HEAD, last, gpt.output_layer.weight if gpt.post_process else None)
    elif importing and gpt.post_process and not gpt.pre_process:
        # A tied model cut into stages keeps a second copy of the embedding on its last one.
        yield _vocabulary(a, size, EMBEDDING, last, gpt.output_layer.weight)


def _layer(a: Architecture, size: int, index: int, stage: int, layer: torch.nn.Module | None, importing: bool) -> Iterator[_Piece]:
    def parameter(path: str) -> Tensor | None:
        if layer is None:
            return None
        found, linear = layer.get_parameter(path), path.removesuffix(".weight")
        if importing or linear not in LINEARS or not hasattr(layer, "adapters"):
            return found
        return layer.adapters.merged(LINEARS[linear], found)  # whoever reads the weights knows nothing of adapters

    def norm(module: str, fused_into: str) -> Tensor | None:
        # TransformerEngine keeps a normalisation's weight in the linear layer that follows it.
        if layer is None or isinstance(getattr(getattr(layer, module), "weight", None), Tensor):
            return parameter(f"{module}.weight")
        return parameter(f"{fused_into}.layer_norm_weight")

    prefix = f"model.layers.{index}."
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    yield _plain(prefix + "input_layernorm.weight", (a.hidden,), stage, None, norm("input_layernorm", "self_attention.linear_qkv"))
    yield _qkv(a, size, attention, "weight", (a.hidden,), stage, parameter("self_attention.linear_qkv.weight"))
    if a.qkv_bias:
        yield _qkv(a, size, attention, "bias", (), stage, parameter("self_attention.linear_qkv.bias"))
    if a.qk_norm:
        for which in "qk":
            weight = parameter(f"self_attention.{which}_layernorm.weight")
            yield _plain(f"{attention}{which}_norm.weight", (a.head_dim,), stage, None, weight)
    shape = (a.hidden, a.heads * a.head_dim)
    yield _plain(attention + "o_proj.weight", shape, stage, 1, parameter("self_attention.linear_proj.weight"))
    yield _plain(prefix + "post_attention_layernorm.weight", (a.hidden,), stage, None, norm("pre_mlp_layernorm", "mlp.linear_fc1"))
    yield _gate_up(a, size, mlp, stage, parameter("mlp.linear_fc1.weight"))
    yield _plain(mlp + "down_proj.weight", (a.hidden, a.ffn), stage, 1, parameter("mlp.linear_fc2.weight"))


def _plain(name: str, shape: tuple[int, ...], stage: int, dim: int | None, parameter: Tensor | None) -> _Piece:
    return _Piece({name: shape}, stage, parameter, shape, dim, fuse=lambda parts: parts[0], split=lambda full: [full])


def _vocabulary(a: Architecture, size: int, name: str, stage: int, parameter: Tensor | None) -> _Piece:
    padded = a.padded_vocab(size)

    def fuse(parts: list[Tensor]) -> Tensor:
        return torch.cat([parts[0], parts[0].new_zeros(padded // size - parts[0].size(0), a.hidden)])

    return _Piece({name: (a.vocab, a.hidden)}, stage, parameter, (padded, a.hidden), 0, fuse, split=lambda full: [full[: a.vocab]])


def _qkv(a: Architecture, size: int, prefix: str, kind: str, rest: tuple[int, ...], stage: int, parameter: Tensor | None) -> _Piece:
    def fuse(parts: list[Tensor]) -> Tensor:
        return fuse_qkv(parts[0], parts[1], parts[2], a.kv_heads // size)

    def split(full: Tensor) -> list[Tensor]:
        return split_qkv(full, a.heads, a.kv_heads)

    heads = {"q": a.heads, "k": a.kv_heads, "v": a.kv_heads}
    shapes = {f"{prefix}{which}_proj.{kind}": (n * a.head_dim, *rest) for which, n in heads.items()}
    return _Piece(shapes, stage, parameter, ((a.heads + 2 * a.kv_heads) * a.head_dim, *rest), 0, fuse, split)


def _gate_up(a: Architecture, size: int, prefix: str, stage: int, parameter: Tensor | None) -> _Piece:
    """Megatron's order: for each tensor-parallel rank its rows of gate, then its rows of up."""

    def split(full: Tensor) -> list[Tensor]:
        return [part.reshape(a.ffn, a.hidden) for part in full.view(size, 2, a.ffn // size, a.hidden).unbind(1)]

    shapes: dict[str, tuple[int, ...]] = {f"{prefix}{which}_proj.weight": (a.ffn, a.hidden) for which in ("gate", "up")}
    return _Piece(shapes, stage, parameter, (2 * a.ffn, a.hidden), 0, fuse=torch.cat, split=split)
