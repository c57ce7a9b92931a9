"""Stands in for TransformerEngine's FusedAdam: the same state layout, the step count in the parameter group, and the mathematics in torch.

Megatron's distributed optimizer takes its step counts back from an optimizer that keeps them so; torch's AdamW keeps them elsewhere.
"""

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import megatron.core.optimizer as optimizers
import torch
from megatron.core.optimizer import distrib_optimizer

import azr_nemo.megatron.optimizer


class FusedAdam(torch.optim.Optimizer):
    """Decoupled weight decay. Moments are fp32 whatever the parameters are."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adam_w_mode: bool = True,
        weight_decay: float = 0.0,
        **unknown: Any,
    ) -> None:
        assert adam_w_mode
        assert bias_correction
        super().__init__(params, {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32)
                    state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
                gradient = parameter.grad.float()
                state["exp_avg"].lerp_(gradient, 1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                root = (state["exp_avg_sq"] / (1 - beta2 ** group["step"])).sqrt_().add_(group["eps"])
                parameter.addcdiv_(state["exp_avg"] / (1 - beta1 ** group["step"]), root, value=-group["lr"])


def install() -> None:
    """In this process, which must not have TransformerEngine, Megatron's optimizers are made of this one."""
    optimizers.Adam = distrib_optimizer.Adam = FusedAdam
    optimizers.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.HAVE_APEX_OR_TE = distrib_optimizer.USING_TE_OPTIMIZER = True
    find = importlib.util.find_spec
    azr_nemo.megatron.optimizer.find_spec = lambda name: find("torch") if name == "transformer_engine" else find(name)  # type: ignore[attr-defined]
