"""What the trainer must know of a Hugging Face model, and which models and parallel layouts it can take; nothing is built here."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.errors import UserError

FAMILIES = ("llama", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3")
# Megatron's linear layers, and those of Hugging Face's that each is fused of.
LINEARS = {
    "self_attention.linear_qkv": ("q_proj", "k_proj", "v_proj"),
    "self_attention.linear_proj": ("o_proj",),
    "mlp.linear_fc1": ("gate_proj", "up_proj"),
    "mlp.linear_fc2": ("down_proj",),
}
ROW_PARALLEL = ("o_proj", "down_proj")


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Llama-shaped decoder. family: the model_type of its Hugging Face configuration."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    norm_eps: float
    tied: bool
    rope_theta: float

    @property
    def qkv_bias(self) -> bool:
        return self.family == "qwen2"

    @property
    def qk_norm(self) -> bool:
        return self.family == "qwen3"

    def padded_vocab(self, tensor_parallel: int) -> int:
        """The vocabulary rounded up so that tensor-parallel ranks hold equal parts; padding never enters a softmax."""
        return math.ceil(self.vocab / tensor_parallel) * tensor_parallel


def linear_shapes(a: Architecture) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each linear layer, by its Hugging Face name."""
    heads, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
    return {
        "q_proj": (heads, a.hidden), "k_proj": (keys, a.hidden), "v_proj": (keys, a.hidden), "o_proj": (a.hidden, heads),
        "gate_proj": (a.ffn, a.hidden), "up_proj": (a.ffn, a.hidden), "down_proj": (a.hidden, a.ffn),
    }  # fmt: skip


def read_architecture(config: PretrainedConfig) -> Architecture:
    """The architecture behind a Hugging Face configuration. Raises UserError for whatever Megatron would compute differently."""
    family = config.model_type
    if family not in FAMILIES:
        raise UserError(f"the model's architecture {family!r} is not supported: use one of {', '.join(FAMILIES)}")
    refused = {
        "hidden_act": (config.hidden_act, "silu"),
        "mlp_bias": (getattr(config, "mlp_bias", False), False),
        "use_sliding_window": (getattr(config, "use_sliding_window", False), False),
        # Qwen2's QKV bias is part of the family and not a switch.
        "attention_bias": (family != "qwen2" and getattr(config, "attention_bias", False), False),
        "partial_rotary_factor": (rope_parameters(config).get("partial_rotary_factor", 1.0), 1.0),
    }
    for name, (value, wanted) in refused.items():
        if value != wanted:
            raise UserError(f"the model's config.json says {name}={value}, which is not supported: only {name}={wanted} is")
    rope = rope_parameters(config)
    if rope["rope_type"] not in ROPE_TYPES:
        raise UserError(f"the model's rope type {rope['rope_type']!r} is not supported: use a model with one of {', '.join(ROPE_TYPES)}")
    heads = config.num_attention_heads
    return Architecture(
        family=family,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        ffn=config.intermediate_size,
        vocab=config.vocab_size,
        positions=config.max_position_embeddings,
        norm_eps=config.rms_norm_eps,
        tied=bool(config.tie_word_embeddings),
        rope_theta=float(rope["rope_theta"]),
    )


def rope_parameters(config: PretrainedConfig) -> dict[str, Any]:
    """rope_type, rope_theta and the scaling's own numbers, wherever this version of transformers keeps them."""
    found = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    found.setdefault("rope_theta", getattr(config, "rope_theta", None) or 10000.0)
    found.setdefault("rope_type", found.get("type", "default"))
    return found


def inverse_frequencies(config: PretrainedConfig) -> Tensor:
    """Rotary inverse frequencies [head_dim / 2], fp32, for the rope types `default`, `linear` and `llama3`.

    llama3 is the rule of the Llama 3.1 release: long wavelengths are slowed by `factor`, short ones kept, those between are blended.
    """
    architecture, rope = read_architecture(config), rope_parameters(config)
    steps = torch.arange(0, architecture.head_dim, 2, dtype=torch.float32) / architecture.head_dim
    frequencies = 1.0 / (architecture.rope_theta**steps)
    if rope["rope_type"] == "default":
        return frequencies
    factor = rope["factor"]
    if rope["rope_type"] == "linear":
        return frequencies / factor
    context = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    wavelengths = 2 * math.pi / frequencies
    slow = torch.where(wavelengths > context / low, frequencies / factor, frequencies)
    blend = (context / wavelengths - low) / (high - low)
    between = (wavelengths >= context / high) & (wavelengths <= context / low)
    return torch.where(between, (1 - blend) * frequencies / factor + blend * frequencies, slow)


def check_layout(config: PretrainedConfig, tensor_parallel: int, pipeline_parallel: int, world: int) -> None:
    """Raises UserError when the model cannot be cut this way. Pure: builds nothing, so a dry run can call it.

    Tensor parallelism must divide the heads, the kv heads and the feed-forward width, pipeline parallelism the layers, and their product
    the number of ranks; what remains is data parallelism.
    """
    model = read_architecture(config)
    possible = [n for n in range(1, model.kv_heads + 1) if model.heads % n == 0 and model.kv_heads % n == 0 and model.ffn % n == 0]
    if tensor_parallel not in possible:
        width = "" if model.ffn % max(1, tensor_parallel) == 0 else f" and its feed-forward width {model.ffn}"
        raise UserError(
            f"engine.tensor_parallel={tensor_parallel} does not divide the model's {model.heads} attention heads and "
            f"{model.kv_heads} kv heads{width}: use {_choices(possible)}"
        )
    if pipeline_parallel < 1 or model.layers % pipeline_parallel:
        possible = [n for n in range(1, model.layers + 1) if model.layers % n == 0]
        raise UserError(
            f"engine.pipeline_parallel={pipeline_parallel} does not divide the model's {model.layers} layers: use {_choices(possible)}"
        )
    size = tensor_parallel * pipeline_parallel
    if world % size:
        raise UserError(
            f"engine.tensor_parallel={tensor_parallel} x engine.pipeline_parallel={pipeline_parallel} needs a multiple of {size} ranks, "
            f"but the job has {world}: start it with torchrun --nproc-per-node {size}, or lower them"
        )


def _choices(numbers: list[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
