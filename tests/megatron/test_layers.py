import pytest
import torch
import torch.nn.functional as F
from tiny_models import CONFIGS, run_config
from torch import Tensor

from azr_nemo.megatron.layers import RMSNorm, _SwiGLU, grouped_attention
from azr_nemo.megatron.model import transformer_config
from azr_nemo.megatron.platform import Platform


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(output, inputs, torch.randn_like(output))


def test_rms_norm_is_torchs(platform: Platform) -> None:
    torch.manual_seed(0)
    config = transformer_config(CONFIGS["llama-tied"](), platform, run_config().engine, torch.float32)
    norm = RMSNorm(config, 32, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 32, requires_grad=True)
    ours, theirs = norm(x), F.rms_norm(x, (32,), norm.weight, 1e-5)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(gradients(ours, x, norm.weight), gradients(theirs, x, norm.weight), strict=True):
        torch.testing.assert_close(a, b)


def test_swiglu_is_silu_of_the_first_half_times_the_second() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 24, requires_grad=True)
    gate, up = x.chunk(2, -1)
    ours, theirs = _SwiGLU.apply(x), F.silu(gate) * up
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients(ours, x)[0], gradients(theirs, x)[0])


@pytest.mark.parametrize("seen", [None, (torch.rand(7, 7) < 0.5) | torch.eye(7, dtype=torch.bool)], ids=["causal", "masked"])
def test_plain_products_attend_as_torchs_attention_does(seen: Tensor | None) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 7, 4, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2))
    ours = grouped_attention(q, k, v, scale=0.3, seen=seen)
    theirs = F.scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(gradients(ours, q, k, v), gradients(theirs, q, k, v), strict=True):
        torch.testing.assert_close(a, b)
