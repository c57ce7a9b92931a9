"""NeMo's model_config.yaml and a Hugging Face configuration: what each says of the same model (NeMo 2.1, MegatronGPTModel)."""

from typing import Any

import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from transformers import AutoConfig, PretrainedConfig

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import Architecture, rope_parameters

# NeMo's scale_positional_embedding has these numbers in its code: Llama 3.1's.
LLAMA3_SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# NeMo 2.1 has no layers with a normalisation of queries and keys. It refuses this name; it would otherwise leave out their weights in silence.
QK_NORM_SPEC = "te_gpt_qk_layernorm"


def to_model_config(config: PretrainedConfig, a: Architecture, dtype: torch.dtype, tokenizer: str) -> dict[str, Any]:
    """What MegatronGPTModel needs to know of the model, with NeMo's defaults for its training. tokenizer: a Hugging Face directory or name.

    Raises UserError when NeMo would compute the model differently.
    """
    return {
        "mcore_gpt": True,
        "transformer_engine": True,
        "name": QK_NORM_SPEC if a.qk_norm else "te_gpt",
        "precision": {torch.bfloat16: "bf16", torch.float16: 16, torch.float32: 32}[dtype],
        "megatron_amp_O2": dtype == torch.bfloat16,
        # the model
        "encoder_seq_length": a.positions,
        "max_position_embeddings": a.positions,
        "num_layers": a.layers,
        "hidden_size": a.hidden,
        "ffn_hidden_size": a.ffn,
        "num_attention_heads": a.heads,
        "num_query_groups": a.kv_heads,
        "kv_channels": a.head_dim,
        "override_vocab_size": a.vocab,
        "make_vocab_size_divisible_by": 128,
        "normalization": "rmsnorm",
        "layernorm_epsilon": a.norm_eps,
        "activation": "fast-swiglu",
        "bias": False,
        "qkv_bias": a.qkv_bias,
        "qk_layernorm": a.qk_norm,
        "share_embeddings_and_output_weights": a.tied,
        "position_embedding_type": "rope",
        "rotary_percentage": 1.0,
        "rotary_base": a.rope_theta,
        **_scaling(config),
        "transformer_block_type": "pre_ln",
        "attention_type": "multihead",
        "init_method_std": config.initializer_range,
        "use_scaled_init_method": True,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "ffn_dropout": 0.0,
        "apply_query_key_layer_scaling": False,
        "normalize_attention_scores": True,
        "headscale": False,
        "openai_gelu": False,
        "pre_process": True,
        "post_process": True,
        "persist_layer_norm": True,
        "tokenizer": {"library": "huggingface", "type": tokenizer, "model": None, "vocab_file": None, "merge_file": None, "use_fast": True},
        # how it is run: whoever trains it overrides these
        "micro_batch_size": 1,
        "global_batch_size": 1,
        "rampup_batch_size": None,
        "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1,
        "virtual_pipeline_model_parallel_size": None,
        "context_parallel_size": 1,
        "sequence_parallel": False,
        "resume_from_checkpoint": None,
        "use_cpu_initialization": False,
        "gradient_as_bucket_view": True,
        "gradient_accumulation_fusion": False,
        "grad_allreduce_chunk_size_mb": 125,
        "grad_div_ar_fusion": True,
        "bias_activation_fusion": False,
        "bias_dropout_add_fusion": False,
        "masked_softmax_fusion": True,
        "apply_rope_fusion": False,
        "get_attention_mask_from_fusion": True,
        "fp32_residual_connection": False,
        "fp16_lm_cross_entropy": False,
        "native_amp_init_scale": 2**32,
        "native_amp_growth_interval": 1000,
        "hysteresis": 2,
        "onnx_safe": False,
        "fp8": False,
        "seed": 1234,
        "activations_checkpoint_granularity": None,
        "activations_checkpoint_method": None,
        "activations_checkpoint_num_layers": None,
        "activations_checkpoint_layers_per_pipeline": None,
        "nsys_profile": {"enabled": False},
        "peft": {"peft_scheme": "none"},
        "optim": {"name": "distributed_fused_adam", "lr": 1e-6, "weight_decay": 0.01, "betas": [0.9, 0.98]},
        "data": {"data_impl": "jsonl", "data_prefix": None, "splits_string": None, "seq_length": a.positions, "num_workers": 0},
    }


def _scaling(config: PretrainedConfig) -> dict[str, Any]:
    rope = rope_parameters(config)
    if rope["rope_type"] == "linear":
        return {"seq_len_interpolation_factor": rope["factor"]}
    if rope["rope_type"] == "llama3":
        wrong = {name: rope[name] for name, value in LLAMA3_SCALING.items() if rope[name] != value}
        if wrong:
            raise UserError(
                f"the model's rope scaling has {wrong}, but NeMo knows only that of Llama 3.1 ({LLAMA3_SCALING}): "
                "it can be converted to hf and megatron, not to nemo"
            )
        return {"scale_positional_embedding": True}
    return {}


def from_model_config(cfg: DictConfig, origin: str, vocab: int) -> PretrainedConfig:
    """The Hugging Face configuration of the model in a model_config.yaml. vocab: how many rows its embedding has.

    Raises UserError for whatever Llama, Qwen2 and Qwen3 do not have, and for a value that is missing.
    """
    read = _Reader(cfg, origin)
    for name, expected in (
        ("activation", "fast-swiglu"),
        ("normalization", "rmsnorm"),
        ("position_embedding_type", "rope"),
        ("rotary_percentage", 1.0),
        ("rotary_interleaved", False),
        ("bias", False),
        ("layernorm_zero_centered_gamma", False),
        ("num_moe_experts", None),
        ("window_size", None),
        ("transformer_block_type", "pre_ln"),
    ):
        read.expect(name, expected)
    family = "qwen3" if read("qk_layernorm", False) else "qwen2" if read("qkv_bias", False) else "llama"
    hidden, heads = int(read("hidden_size")), int(read("num_attention_heads"))
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(read("rotary_base", 10000.0))}
    if read("scale_positional_embedding", False):
        rope |= {"rope_type": "llama3", **LLAMA3_SCALING}
    elif factor := read("seq_len_interpolation_factor", None):
        rope |= {"rope_type": "linear", "factor": float(factor)}
    head_dim = int(read("kv_channels", None) or hidden // heads)
    if family == "qwen2" and head_dim != hidden // heads:
        raise UserError(
            f"{origin} says kv_channels={head_dim}, but Qwen2's heads are hidden_size / num_attention_heads = {hidden // heads}"
        )
    sizes = {} if family == "qwen2" else {"head_dim": head_dim}
    return AutoConfig.for_model(
        family,
        vocab_size=min(vocab, int(read("override_vocab_size", None) or vocab)),
        num_hidden_layers=int(read("num_layers")),
        hidden_size=hidden,
        intermediate_size=int(read("ffn_hidden_size")),
        num_attention_heads=heads,
        num_key_value_heads=int(read("num_query_groups", None) or heads),
        max_position_embeddings=int(read("max_position_embeddings", None) or read("encoder_seq_length")),
        rms_norm_eps=float(read("layernorm_epsilon", 1e-5)),
        tie_word_embeddings=bool(read("share_embeddings_and_output_weights", True)),
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        architectures=[{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[family]],
        **sizes,
    )


class _Reader:
    def __init__(self, cfg: DictConfig, origin: str) -> None:
        self._cfg, self._origin = cfg, origin

    def __call__(self, name: str, *default: Any) -> Any:
        try:
            if name in self._cfg:
                return self._cfg[name]
        except OmegaConfBaseException as error:
            raise UserError(f"{self._origin}: its {name} cannot be read: {' '.join(str(error).split())}") from error
        if not default:
            raise UserError(f"{self._origin} has no {name}: expected the configuration of a MegatronGPTModel")
        return default[0]

    def expect(self, name: str, expected: Any) -> None:
        found = self(name, expected)
        same = found.lower() == expected if isinstance(found, str) and isinstance(expected, str) else found == expected
        if not same:
            raise UserError(f"{self._origin} says {name}={found}, which is not supported: only {name}={expected} is")
