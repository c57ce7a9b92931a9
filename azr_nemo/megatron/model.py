"""From a Hugging Face configuration to this rank's part of a Megatron GPTModel."""

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import Float16Module
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.megatron.architecture import inverse_frequencies, read_architecture
from azr_nemo.megatron.head import ScoringGPT
from azr_nemo.megatron.layers import decoder_spec
from azr_nemo.megatron.platform import Platform
from azr_nemo.settings.schema import EngineConfig


def build_model(
    config: PretrainedConfig,
    platform: Platform,
    engine: EngineConfig,
    dtype: torch.dtype,
    temperature: float = 1.0,
    fp32_logits: bool = False,
    lora: bool = False,
) -> torch.nn.Module:
    """This rank's stage and slice, with weights not yet set; wrapped in Megatron's Float16Module for bfloat16.

    `distributed.start` must have run, and `check_layout` passed. temperature: divides the logits before log-probabilities are taken.
    fp32_logits: computes them in fp32 there (azr_nemo.megatron.head). lora: adapters will be attached.
    """
    architecture = read_architecture(config)
    with platform.scope():
        transformer = transformer_config(config, platform, engine, dtype, lora)
        model = ScoringGPT(
            transformer,
            decoder_spec(transformer, has_transformer_engine_layers(platform, dtype, lora), engine.recompute),
            vocab_size=architecture.padded_vocab(engine.tensor_parallel),
            max_sequence_length=architecture.positions,
            pre_process=parallel_state.is_pipeline_first_stage(),
            post_process=parallel_state.is_pipeline_last_stage(),
            share_embeddings_and_output_weights=architecture.tied,
            position_embedding_type="rope",
            rotary_base=architecture.rope_theta,
        )
        model.temperature, model.true_vocab, model.fp32_logits = temperature, architecture.vocab, fp32_logits
        # Megatron's own llama3 scaling fixes all of its numbers but one, so the frequencies come from the model's configuration.
        model.rotary_pos_emb.inv_freq = inverse_frequencies(config).to(platform.device)
        model = model.to(platform.device)
        return Float16Module(transformer, model) if dtype == torch.bfloat16 else model


def transformer_config(
    config: PretrainedConfig, platform: Platform, engine: EngineConfig, dtype: torch.dtype, lora: bool = False
) -> TransformerConfig:
    """Megatron's configuration of the model. What TransformerEngine's layers can fuse is fused; our own do without.

    Not fused: dropout (there is none), the softmax (TransformerEngine's attention has its own), layer normalisation (RMSNorm is in the product
    that follows it).
    """
    model = read_architecture(config)
    transformer_engine = has_transformer_engine_layers(platform, dtype, lora)
    recompute = {}
    if engine.recompute and transformer_engine:
        recompute = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    return TransformerConfig(
        num_layers=model.layers,
        hidden_size=model.hidden,
        num_attention_heads=model.heads,
        num_query_groups=model.kv_heads,
        kv_channels=model.head_dim,
        ffn_hidden_size=model.ffn,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_eps,
        gated_linear_unit=True,
        activation_func=F.silu,
        # Means: the activation is a module of the layer specification. Ours is SwiGLU, with or without TransformerEngine.
        use_te_activation_func=not transformer_engine,
        add_bias_linear=False,
        add_qkv_bias=model.qkv_bias,
        qk_layernorm=model.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=engine.tensor_parallel,
        sequence_parallel=engine.sequence_parallel and engine.tensor_parallel > 1,
        pipeline_model_parallel_size=engine.pipeline_parallel,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        use_cpu_initialization=platform.device.type == "cpu",
        # Every weight is imported. Initialisation itself must stay on: it also marks which parameters are slices, for the gradient norm.
        init_method=_leave,
        output_layer_init_method=_leave,
        embedding_init_method=_leave,
        # Compiled SwiGLU that keeps its input alone.
        bias_activation_fusion=transformer_engine,
        # The kernel takes where rows begin from the device; the unfused path asks for it twice a layer and waits. Layers of our own take it, too.
        apply_rope_fusion=has_transformer_engine_layers(platform, dtype),
        # Products add weights' gradients to the fp32 buffer at once. The embedding's and head's layers want APEX's kernel for it.
        gradient_accumulation_fusion=transformer_engine and find_spec("fused_weight_gradient_mlp_cuda") is not None,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        batch_p2p_sync=False,
        # Micro-batches differ in length; Megatron then also asks for this dispatcher, dense model or not.
        variable_seq_lengths=True,
        moe_token_dispatcher_type="alltoall",
        # Losses are sums over tokens; Megatron divides the gradients by the token count of all micro-batches and data-parallel ranks.
        calculate_per_token_loss=True,
        **recompute,
    )


def has_transformer_engine_layers(platform: Platform, dtype: torch.dtype, lora: bool = False) -> bool:
    """TransformerEngine's attention over rows laid end to end is for half precision, so a float32 model has Megatron's own layers anywhere; and its
    linear layers normalise what they are given, of which adapters need the normalised input."""
    return platform.transformer_engine and dtype == torch.bfloat16 and not lora


def _leave(weight: Tensor) -> Tensor:
    return weight


def bare(model: torch.nn.Module) -> ScoringGPT:
    """The GPTModel inside its wrappers (data parallelism, Float16Module)."""
    while hasattr(model, "module"):
        model = model.module
    assert isinstance(model, ScoringGPT)
    return model
