"""From the weight stream to the fused and packed weights of the decode, one tensor at a time."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from azr_nemo.rollout.expected import check_complete, check_weight
from azr_nemo.rollout.torch.shape import Shape

# Parts that are one matrix product of the decode: fused name -> Hugging Face parts, in the order of the fused rows.
FUSED = {
    "self_attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
}


class Projection:
    """x @ weight.T + bias. On a CPU the weight is laid out once as oneDNN's kernels want it, which otherwise happens in every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self._packed = _can_pack(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self._packed else weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return F.linear(x, self._weight, self._bias)


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True)
class Layer:
    """One decoder layer. qkv gives the heads in the order queries, keys, values. qk_norm: [heads + kv_heads, head_dim], Qwen3 only."""

    input_norm: Tensor
    qkv: Projection
    qk_norm: Tensor | None
    out: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection


@dataclass(frozen=True)
class Weights:
    """embedding: [vocabulary, hidden]; the head is a projection of its own even when tied, since it is packed."""

    embedding: Tensor
    layers: list[Layer]
    norm: Tensor
    head: Projection


def load_weights(stream: Iterable[tuple[str, Tensor]], shape: Shape, dtype: torch.dtype, device: torch.device) -> Weights:
    """Fuses the stream's tensors layer by layer, copying every one. Raises UserError for names that are unknown or missing, or a wrong shape."""
    wanted = shape.parameters()
    seen: dict[str, Tensor] = {}
    layers: list[Layer | None] = [None] * shape.layers
    left = {layer: set(shape.layer_parameters(layer)) for layer in range(shape.layers)}
    missing = set(wanted)
    for name, tensor in stream:
        if name == "lm_head.weight" and shape.tied:
            continue
        check_weight(name, tensor, wanted)
        # The trainer goes on changing its own tensors.
        seen[name] = tensor.detach().to(device=device, dtype=dtype, copy=True)
        missing.discard(name)
        if name.startswith("model.layers."):
            layer = int(name.split(".")[2])
            left[layer].discard(name)
            if not left[layer]:
                layers[layer] = _fuse_layer(seen, layer, shape)
    check_complete(missing)
    embedding = seen["model.embed_tokens.weight"]
    return Weights(
        embedding=embedding,
        layers=[layer for layer in layers if layer is not None],
        norm=seen["model.norm.weight"],
        head=Projection(embedding if shape.tied else seen["lm_head.weight"]),
    )


def _fuse_layer(seen: dict[str, Tensor], layer: int, shape: Shape) -> Layer:
    """Takes a complete layer's tensors out of `seen`."""
    prefix = f"model.layers.{layer}."

    def take(name: str, kind: str = "weight") -> Tensor:
        return torch.cat([seen.pop(f"{prefix}{part}.{kind}") for part in FUSED.get(name, (name,))])

    qk_norm = None
    if shape.qk_norm:
        norms = [take("self_attn.q_norm").expand(shape.heads, -1), take("self_attn.k_norm").expand(shape.kv_heads, -1)]
        qk_norm = torch.cat(norms)
    return Layer(
        input_norm=take("input_layernorm"),
        qkv=Projection(take("self_attn.qkv"), take("self_attn.qkv", "bias") if shape.qkv_bias else None),
        qk_norm=qk_norm,
        out=Projection(take("self_attn.o_proj")),
        mlp_norm=take("post_attention_layernorm"),
        gate_up=Projection(take("mlp.gate_up")),
        down=Projection(take("mlp.down_proj")),
    )
