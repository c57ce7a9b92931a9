"""Stands in for TransformerEngine 2.11 on a pretended device: the names that megatron-core asks for, with what its layers keep and allocate, and strict
about arguments, dtypes and devices. No kernel is here, and no number.

To be installed before megatron is imported, in a process of its own.
"""

import contextlib
import importlib.machinery
import sys
import types
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.utils.checkpoint import checkpoint as recompute

_dummies: dict[tuple[Any, ...], Tensor] = {}


def _maps() -> Any:
    from megatron.core.tensor_parallel import mappings

    return mappings


class _Product(torch.autograd.Function):
    """x @ w.T. fused: the weight's gradient goes into its fp32 buffer, and autograd gets a dummy, one for each shape. parts: x is one of so many of
    its first axis, which the others have; gathered for the product, and again in the backward pass, but not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, fused: bool, parts: int = 1) -> Tensor:
        assert x.dtype == weight.dtype, (x.dtype, weight.dtype)
        assert x.device == weight.device, (x.device, weight.device)
        ctx.save_for_backward(x, weight)
        ctx.fused, ctx.biased, ctx.parts = fused, bias is not None, parts
        whole = x.new_empty(x.size(0) * parts, *x.shape[1:]) if parts > 1 else x
        out = x.new_empty(*whole.shape[:-1], weight.size(0))
        return out if bias is None else out.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        bias = grad.new_empty(weight.size(0)) if ctx.biased else None
        whole = x.new_empty(x.size(0) * ctx.parts, *x.shape[1:]) if ctx.parts > 1 else x
        torch.empty_like(whole)  # its gradient, before the parts are summed
        if not ctx.fused:
            return torch.empty_like(x), torch.empty_like(weight), bias, None, None
        assert weight.main_grad.dtype == torch.float32
        assert weight.main_grad.shape == weight.shape
        weight.main_grad.add_(0.0)
        weight.grad_added_to_main_grad = True
        key = (tuple(weight.shape), weight.dtype)
        if key not in _dummies:
            _dummies[key] = torch.empty_like(weight)
        return torch.empty_like(x), _dummies[key].detach(), bias, None, None


class _Norm(torch.autograd.Function):
    """Keeps its input and one number a row, as the kernel does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


class _Layer(Module):
    """What products share. parallel_mode: column cuts the output, row the input."""

    def __init__(
        self, in_features: int, out_features: int, sequence_parallel: bool, tp_group: Any, tp_size: int, parallel_mode: str | None,
        bias: bool, return_bias: bool, params_dtype: torch.dtype, init_method: Any, fused: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cut, self.group, self.size, self.mode = sequence_parallel, tp_group, tp_size, parallel_mode
        self.return_bias, self.fused = return_bias, fused
        rows = out_features // tp_size if parallel_mode == "column" else out_features
        columns = in_features // tp_size if parallel_mode == "row" else in_features
        weight = torch.empty(rows, columns, dtype=params_dtype, device="cuda")
        if init_method is not None:
            init_method(weight)
        self.weight = Parameter(weight)
        self._mark(self.weight, parallel_mode is not None, 1 if parallel_mode == "row" else 0)
        self.bias: Any = None
        if bias:
            self.bias = Parameter(torch.zeros(rows, dtype=params_dtype, device="cuda"))
            self._mark(self.bias, parallel_mode == "column", 0)

    @staticmethod
    def _mark(parameter: Any, cut: bool, dim: int) -> None:
        parameter.tensor_model_parallel, parameter.partition_dim, parameter.partition_stride = cut, dim, 1

    def product(self, x: Tensor, parts: int = 1) -> Any:
        out = _Product.apply(x, self.weight, None if self.return_bias else self.bias, self.fused, parts)
        if self.mode == "row" and self.size > 1:
            maps = _maps()
            meet = maps.reduce_scatter_to_sequence_parallel_region if self.cut else maps.reduce_from_tensor_model_parallel_region
            out = meet(out, group=self.group)
        return (out, self.bias) if self.return_bias else out

    def set_tensor_parallel_group(self, group: Any) -> None:
        self.group = group

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        pass


class Linear(_Layer):
    def __init__(
        self, in_features: int, out_features: int, sequence_parallel: bool = False, fuse_wgrad_accumulation: bool = False, tp_group: Any = None,
        tp_size: int = 1, get_rng_state_tracker: Any = None, init_method: Any = None, bias: bool = True, return_bias: bool = False,
        params_dtype: Any = None, parallel_mode: str | None = None, device: Any = "cuda", ub_overlap_ag: bool = False, ub_overlap_rs: bool = False,
        ub_name: Any = None, delay_wgrad_compute: bool = False, symmetric_ar_type: Any = None, rng_tracker_name: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_features, out_features, sequence_parallel, tp_group, tp_size, parallel_mode, bias, return_bias, params_dtype, init_method,
            fuse_wgrad_accumulation,
        )  # fmt: skip

    def forward(self, x: Tensor, is_first_microbatch: Any = None) -> Any:
        return self.product(x)


class LayerNormLinear(_Layer):
    def __init__(
        self, in_features: int, out_features: int, eps: float = 1e-5, sequence_parallel: bool = False, fuse_wgrad_accumulation: bool = False,
        tp_group: Any = None, tp_size: int = 1, get_rng_state_tracker: Any = None, init_method: Any = None, bias: bool = True,
        normalization: str = "LayerNorm", return_bias: bool = False, params_dtype: Any = None, parallel_mode: str | None = None,
        return_layernorm_output: bool = False, zero_centered_gamma: bool = False, device: Any = "cuda", ub_bulk_dgrad: bool = False,
        ub_bulk_wgrad: bool = False, ub_overlap_ag: bool = False, ub_overlap_rs_dgrad: bool = False, ub_name: Any = None,
        delay_wgrad_compute: bool = False, symmetric_ar_type: Any = None,
    ) -> None:  # fmt: skip
        assert normalization == "RMSNorm"
        super().__init__(
            in_features, out_features, sequence_parallel, tp_group, tp_size, "column", bias, return_bias, params_dtype, init_method,
            fuse_wgrad_accumulation,
        )  # fmt: skip
        self.layer_norm_weight: Any = Parameter(torch.ones(in_features, dtype=params_dtype, device="cuda"))
        self.layer_norm_weight.sequence_parallel = sequence_parallel

    def forward(self, x: Tensor, is_first_microbatch: Any = None) -> Any:
        normal = _Norm.apply(x, self.layer_norm_weight)
        if self.size > 1 and self.cut:
            return self.product(normal, parts=self.size)
        if self.size > 1:
            normal = _maps().copy_to_tensor_model_parallel_region(normal, group=self.group)
        return self.product(normal)


class RMSNorm(Module):
    def __init__(
        self, hidden_size: Any = None, eps: float = 1e-5, sequence_parallel: bool = False, params_dtype: Any = None,
        zero_centered_gamma: bool = False, device: Any = "cuda", normalized_shape: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight: Any = Parameter(torch.ones(hidden_size or normalized_shape, dtype=params_dtype, device="cuda"))
        self.weight.sequence_parallel = sequence_parallel

    def forward(self, x: Tensor) -> Tensor:
        return _Norm.apply(x, self.weight)


class _Attend(torch.autograd.Function):
    """Keeps its inputs, its output and one fp32 number a head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty(q.shape[0], q.shape[1] * v.shape[2], dtype=q.dtype, device=q.device)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:2], dtype=torch.float32, device=q.device))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, *_ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


class DotProductAttention(Module):
    def __init__(
        self, num_attention_heads: int, kv_channels: int, num_gqa_groups: Any = None, attention_dropout: float = 0.0, qkv_format: str = "sbhd",
        attn_mask_type: str = "causal", window_size: Any = None, sequence_parallel: bool = False, tp_size: int = 1, get_rng_state_tracker: Any = None,
        tp_group: Any = None, layer_number: Any = None, attention_type: str = "self", cp_group: Any = None, cp_global_ranks: Any = None,
        cp_stream: Any = None, cp_comm_type: Any = None, softmax_scale: Any = None, softmax_type: str = "vanilla",
    ) -> None:  # fmt: skip
        super().__init__()
        assert (num_gqa_groups or num_attention_heads) % tp_size == 0

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None, qkv_format: Any = None, cu_seqlens_q: Any = None,
        cu_seqlens_kv: Any = None, cu_seqlens_q_padded: Any = None, cu_seqlens_kv_padded: Any = None, max_seqlen_q: Any = None,
        max_seqlen_kv: Any = None, attn_mask_type: Any = None, num_splits: Any = None, pad_between_seqs: Any = None,
    ) -> Tensor:  # fmt: skip
        assert (attention_mask, qkv_format, attn_mask_type) == (None, "thd", "padding_causal")
        assert q.dtype in (torch.bfloat16, torch.float16)
        assert q.dim() == k.dim() == v.dim() == 3
        for starts in (cu_seqlens_q, cu_seqlens_kv):
            _require_starts(starts)
        assert isinstance(max_seqlen_q, int)
        assert isinstance(max_seqlen_kv, int)
        return _Attend.apply(q, k, v)


def _require_starts(starts: Tensor) -> None:
    assert (starts.dtype, starts.device.type, starts.dim()) == (torch.int32, "cuda", 1)


class _Rotate(torch.autograd.Function):
    """Keeps where rows begin and the frequencies."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, freqs: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(freqs, starts)
        return torch.empty_like(t)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return torch.empty_like(grad), None, None


def apply_rotary_pos_emb(
    t: Tensor, freqs: Tensor, tensor_format: str = "sbhd", start_positions: Any = None, interleaved: bool = False, fused: bool = False,
    cu_seqlens: Any = None, cp_size: int = 1, cp_rank: int = 0,
) -> Tensor:  # fmt: skip
    assert (tensor_format, fused, interleaved, cp_size) == ("thd", True, False, 1)
    assert t.dim() == 3
    assert freqs.dtype == torch.float32
    assert freqs.dim() == 4
    _require_starts(cu_seqlens)
    return _Rotate.apply(t, freqs, cu_seqlens)


class FusedAdam(torch.optim.Optimizer):
    """Moments where it keeps them, at the step where it makes them."""

    def __init__(
        self, params: Any, lr: float = 1e-3, bias_correction: bool = True, betas: Any = (0.9, 0.999), eps: float = 1e-8, adam_w_mode: bool = True,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for parameter in group["params"]:
                state = self.state[parameter]
                if parameter.grad is not None and not state:
                    for name in ("exp_avg", "exp_avg_sq"):
                        state[name] = torch.zeros_like(parameter, dtype=torch.float32)


def checkpoint(
    function: Any,
    *args: Any,
    distribute_saved_activations: bool = False,
    get_rng_state_tracker: Any = None,
    tp_group: Any = None,
    **kwargs: Any,
) -> Any:
    return recompute(function, *args, use_reentrant=True, preserve_rng_state=False)


def _norm_of(chunk: Any, overflow: Any, lists: Any, per_parameter: bool) -> Any:
    return torch.stack([tensor.float().norm() for tensor in lists[0]]).norm()[None], None


def _scale(chunk: Any, overflow: Any, lists: Any, factor: Any) -> None:
    for source, target in zip(*lists[:2], strict=True):
        target.copy_(source * factor)


def install() -> None:
    """Makes `import transformer_engine` find this, and APEX's kernel for gradients of the embedding's and head's layers be there."""

    def module(name: str, **members: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__path__ = []  # type: ignore[attr-defined]
        made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        made.__dict__.update(members)
        sys.modules[name] = made
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, made)
        return made

    def layers(*names: str) -> dict[str, Any]:
        return {name: type(name, (Module,), {}) for name in names}

    recipe = type("Recipe", (), {"__init__": lambda self, *_, **__: None})
    quantized = type("QuantizedTensor", (torch.Tensor,), {})
    offload: Any = lambda *_, **__: (contextlib.nullcontext(), None)  # noqa: E731
    module("fused_weight_gradient_mlp_cuda")
    module("transformer_engine", __version__="2.11.0")
    module("transformer_engine.common")
    names = ("DelayedScaling", "Float8CurrentScaling", "Float8BlockScaling", "MXFP8BlockScaling", "NVFP4BlockScaling")
    module("transformer_engine.common.recipe", Format=MagicMock(), **dict.fromkeys(names, recipe))
    module(
        "transformer_engine.pytorch", Linear=Linear, LayerNormLinear=LayerNormLinear, RMSNorm=RMSNorm, DotProductAttention=DotProductAttention,
        fp8_model_init=MagicMock(), quantized_model_init=MagicMock(), **layers("LayerNorm", "GroupedLinear", "Fp8Padding", "Fp8Unpadding"),
    )  # fmt: skip
    under = "transformer_engine.pytorch."
    module(under + "fp8", FP8GlobalStateManager=MagicMock(is_fp8_enabled=lambda: False), fp8_autocast=contextlib.nullcontext)
    module(
        under + "distributed", CudaRNGStatesTracker=type("CudaRNGStatesTracker", (), {}), checkpoint=checkpoint,
        is_fp8_activation_recompute_enabled=lambda: False, activation_recompute_forward=MagicMock(),
    )  # fmt: skip
    module(
        under + "graph",
        **{name: MagicMock() for name in ("restore_fp8_tensors", "save_fp8_tensors", "set_capture_end", "set_capture_start")},
    )
    module(under + "utils", make_weak_ref=MagicMock())
    module(
        under + "optimizers", FusedAdam=FusedAdam, FusedSGD=FusedAdam, multi_tensor_scale=_scale, multi_tensor_l2norm=_norm_of,
        multi_tensor_applier=lambda op, buffer, lists, *rest: op(2048 * 32, buffer, lists, *rest),
    )  # fmt: skip
    module(
        under + "ops",
        **layers("AllReduce", "BasicLinear", "Bias", "FusibleOperation", "GEGLU", "GELU", "LayerNorm", "RMSNorm", "ReGLU", "ReLU", "ReduceScatter",
                 "Sequential", "SiLU", "SwiGLU"),
    )  # fmt: skip
    module(under + "tensor", QuantizedTensor=quantized)
    module(under + "float8_tensor", Float8Tensor=quantized)
    router = ("fused_topk_with_score_function", "fused_compute_score_for_moe_aux_loss", "fused_moe_aux_loss")
    module(under + "router", **{name: MagicMock() for name in router})
    module(under + "module")
    module(under + "module.base", TransformerEngineBaseModule=_Layer, get_workspace=MagicMock())
    module(under + "cpp_extensions", general_gemm=MagicMock())
    split = types.SimpleNamespace(apply=lambda tensor, dim, sizes, *_: torch.split(tensor, sizes, dim))
    module(under + "attention", _SplitAlongDim=split)
    module(under + "attention.rope", apply_rotary_pos_emb=apply_rotary_pos_emb, apply_fused_qkv_rotary_pos_emb=MagicMock())
    for name in ("cpu_offload", "cpu_offload_v1"):
        module(under + name, get_cpu_offload_context=offload, mark_not_offload=MagicMock())
