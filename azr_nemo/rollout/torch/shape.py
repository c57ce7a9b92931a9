"""What the decode must know of a Hugging Face model: sizes, parameter names, and which models it computes exactly."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from azr_nemo.errors import UserError

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
