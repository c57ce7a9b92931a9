"""The transformer layer: Megatron's own, with memory-lean attention, normalisation and SwiGLU put in through its layer specification.

Megatron's local attention materialises the scores, torch's RMSNorm and an unfused SwiGLU keep several full-size intermediates. On a CPU
the activations are what limits a micro-batch, so each of the three saves only its input and recomputes the rest in the backward pass.
"""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec, get_gpt_layer_with_transformer_engine_spec
from megatron.core.transformer import ModuleSpec, TransformerConfig
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from azr_nemo.megatron.batches import Blocks
from azr_nemo.megatron.core_versions import mlp_parts

# Rows up to this many tokens attend by plain products on a CPU: torch's fused backward pass is made for long ones, and takes about four
# times as long at 150 tokens. The price is scores kept for the backward pass, 5 MB a row and layer at 512 tokens and 9 heads. Rows that share a
# prompt do so in blocks of up to as many, all of whose tokens are scored against each other.
SHORT = 512


class CausalAttention(DotProductAttention):
    """Causal grouped-query attention without padding: rows, or blocks of rows that share a prompt, lie end to end, or rows are right-padded."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        *_: Any,
        packed_seq_params: Blocks | None = None,
        **__: Any,
    ) -> Tensor:
        """query [s, b, heads, d], key and value [s, b, kv_heads, d] -> [s, b, heads * d]; rows end to end: all without b.

        Raises ValueError for a mask: rows that are not end to end are right-padded, and causal attention then needs none.
        """
        if attention_mask is not None:
            raise ValueError("rows are right-padded and attention is causal: no mask is taken")
        if packed_seq_params is None:
            return self._attend(query, key, value).flatten(2)
        lengths = packed_seq_params.lengths
        rows = zip(*(tensor.unsqueeze(1).split(lengths) for tensor in (query, key, value)), packed_seq_params.seen, strict=True)
        return torch.cat([self._attend(*row) for row in rows]).flatten(1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        q, k, v = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
        if query.device.type == "cpu" and query.size(0) <= SHORT:
            out = grouped_attention(q, k, v, self.softmax_scale, seen)
        else:
            grouped = q.size(1) != k.size(1)
            out = F.scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None, scale=self.softmax_scale, enable_gqa=grouped)
        return out.permute(2, 0, 1, 3)


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, scale: float, seen: Tensor | None = None) -> Tensor:
    """Attention by plain matrix products. query [b, heads, s, d], key and value [b, kv_heads, s, d] -> [b, heads, s, d]. seen [s, s]: which keys a
    query sees, by default all up to its own.

    The query heads that share a key head are stacked into one tall matrix, so keys and values are never repeated.
    """
    batch, heads, length, width = query.shape
    shared = heads // key.size(1)
    q = query.reshape(-1, shared * length, width)
    k, v = key.reshape(-1, length, width), value.reshape(-1, length, width)
    hidden = torch.full((length, length), -torch.inf, dtype=q.dtype, device=q.device)
    hidden = (hidden.triu(1) if seen is None else hidden.masked_fill_(seen, 0)).repeat(shared, 1)
    weights = torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=scale).softmax(-1)
    return torch.bmm(weights, v).view(batch, heads, length, width)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return wide.mul(scale).to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normal = x.float() * scale
        weighted = grad.float()
        grad_weight = (weighted * normal).flatten(0, -2).sum(0)
        weighted = weighted * weight
        inner = (weighted * normal).mean(-1, keepdim=True)
        return weighted.sub_(normal.mul_(inner)).mul_(scale).to(x.dtype), grad_weight.to(weight.dtype), None


class RMSNorm(torch.nn.Module):
    """Root-mean-square normalisation (arXiv 1910.07467) in fp32, as Llama and Qwen compute it."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # Where each rank normalises its part of the positions, Megatron sums the gradients of the parts.
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: Tensor) -> Tensor:
        return _RMSNorm.apply(x, self.weight, self.eps)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, -1)
        out = torch.empty_like(x)
        grad_gate, grad_up = out.chunk(2, -1)
        torch.mul(F.silu(gate), grad, out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return out


class SwiGLU(MegatronModule):
    """silu(gate) * up on [..., gate | up] (arXiv 2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        return _SwiGLU.apply(x)


class RecomputedLayer(TransformerLayer):
    """A layer that keeps only its input; Megatron's own recomputation saves CUDA random states, which a CPU has not."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(super().forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def decoder_spec(config: TransformerConfig, transformer_engine: bool, recompute: bool = False) -> ModuleSpec | TransformerBlockSubmodules:
    """The decoder's specification: TransformerEngine's layers, or Megatron's own with the parts above."""
    if transformer_engine:
        return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
    layer = get_gpt_layer_local_spec(normalization="RMSNorm", qk_layernorm=config.qk_layernorm)
    if recompute:
        layer.module = RecomputedLayer
    parts = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = RMSNorm
    attention = parts.self_attention.submodules
    attention.core_attention = CausalAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    mlp_parts(parts).activation_func = SwiGLU
    return TransformerBlockSubmodules(layer_specs=[layer] * get_num_layers_to_build(config), layer_norm=RMSNorm)
