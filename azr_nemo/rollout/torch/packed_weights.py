"""From the weight stream to the fused and packed weights of the decode, one tensor at a time."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from azr_nemo.errors import UserError
from azr_nemo.rollout.expected import check_complete, check_weight

FAMILIES = ("llama", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-shaped decoder. inverse_frequencies: of the rotary embedding, [head_dim / 2] float32, scaling applied."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    norm_eps: float
    qkv_bias: bool
    qk_norm: bool
    tied: bool
    inverse_frequencies: Tensor

    def layer_parameters(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Hugging Face names of one layer's parameters and their shapes."""
        prefix = f"model.layers.{layer}."
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (self.hidden,),
            "self_attn.q_proj.weight": (queries, self.hidden),
            "self_attn.k_proj.weight": (keys, self.hidden),
            "self_attn.v_proj.weight": (keys, self.hidden),
            "self_attn.o_proj.weight": (self.hidden, queries),
            "post_attention_layernorm.weight": (self.hidden,),
            "mlp.gate_proj.weight": (self.ffn, self.hidden),
            "mlp.up_proj.weight": (self.ffn, self.hidden),
            "mlp.down_proj.weight": (self.hidden, self.ffn),
        }
        if self.qkv_bias:
            shapes |= {f"self_attn.{part}_proj.bias": (queries if part == "q" else keys,) for part in "qkv"}
        if self.qk_norm:
            shapes |= {f"self_attn.{part}_norm.weight": (self.head_dim,) for part in "qk"}
        return {prefix + name: shape for name, shape in shapes.items()}

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Hugging Face names of all parameters and their shapes; a tied head is not one of them."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden), "model.norm.weight": (self.hidden,)}
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab, self.hidden)
        for layer in range(self.layers):
            shapes |= self.layer_parameters(layer)
        return shapes


def read_shape(config: PretrainedConfig) -> Shape:
    """The shape behind a Hugging Face configuration. Raises UserError for whatever this decode would compute differently."""
    family = config.model_type
    if family not in FAMILIES:
        raise UserError(f"rollout=torch cannot decode the architecture {family!r}, only {', '.join(FAMILIES)}: set rollout=transformers")
    refused = {
        "hidden_act": config.hidden_act != "silu",
        "attention_bias": family != "qwen2" and getattr(config, "attention_bias", False),
        "mlp_bias": getattr(config, "mlp_bias", False),
        "use_sliding_window": getattr(config, "use_sliding_window", False),
        "rope_type": config.rope_parameters["rope_type"] not in ROPE_TYPES,
        "partial_rotary_factor": config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0,
    }
    names = [name for name, is_refused in refused.items() if is_refused]
    if names:
        raise UserError(f"rollout=torch cannot decode a model with this {', '.join(names)} in its config.json: set rollout=transformers")
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        ffn=config.intermediate_size,
        vocab=config.vocab_size,
        norm_eps=config.rms_norm_eps,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied=bool(config.tie_word_embeddings),
        # The three families share this embedding; its scaling factor is 1 for the rope types above.
        inverse_frequencies=LlamaRotaryEmbedding(config).inv_freq.to(torch.float32),
    )


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
