"""Megatron's Adam with decoupled weight decay, fp32 master weights for bfloat16 models, and its learning-rate schedule."""

import math
from importlib.util import find_spec

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from azr_nemo.errors import UserError
from azr_nemo.settings.schema import OptimConfig, RunConfig

LAST = 0.1  # share of the learning rate that a decay ends at: a run that goes on beyond it still learns


def make_optimizer(model: DistributedDataParallel, config: RunConfig, dtype: torch.dtype) -> MegatronOptimizer:
    """AdamW over the model's parameters as they are now; biases and normalisation weights are not decayed, as always in Megatron.

    Raises UserError when the distributed optimizer is asked for without TransformerEngine.
    """
    optim = config.optim
    if config.engine.distributed_optimizer and find_spec("transformer_engine") is None:
        # With torch's AdamW Megatron 0.16 cannot take back the step counts that it saved.
        raise UserError("engine.distributed_optimizer=true needs TransformerEngine, which is not installed: set it to false")
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=optim.lr,
            min_lr=LAST * optim.lr if optim.lr_decay_steps else optim.lr,  # goes into the parameter groups: what the scheduler ends at
            weight_decay=optim.weight_decay,
            adam_beta1=optim.beta1,
            adam_beta2=optim.beta2,
            adam_eps=optim.eps,
            clip_grad=optim.grad_clip or math.inf,  # at 0 Megatron would not even measure the norm
            bf16=dtype == torch.bfloat16,
            params_dtype=dtype,
            use_distributed_optimizer=config.engine.distributed_optimizer,
        ),
        [model],
    )
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if isinstance(part.optimizer, torch.optim.AdamW):
            # Megatron leaves torch's AdamW on its per-tensor loop; the fused kernel reads and writes each tensor once.
            for group in part.optimizer.param_groups:
                group["fused"], group["foreach"] = True, False
    return optimizer


def make_scheduler(optimizer: MegatronOptimizer, optim: OptimConfig) -> OptimizerParamScheduler:
    """A linear warm-up, then a constant learning rate or one that falls to a tenth; to be stepped before each update, so that update k of w
    warms up to lr * k / w."""
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=optim.lr,
        min_lr=0.0,  # the parameter groups' own holds
        lr_warmup_steps=optim.lr_warmup_steps,
        lr_decay_steps=optim.lr_warmup_steps + max(optim.lr_decay_steps, 1),
        lr_decay_style="linear" if optim.lr_decay_steps else "constant",
        start_wd=optim.weight_decay,
        end_wd=optim.weight_decay,
        wd_incr_steps=1,
        wd_incr_style="constant",
        # A resumed run takes the count of steps from its checkpoint, and the rest from its settings.
        use_checkpoint_opt_param_scheduler=False,
        override_opt_param_scheduler=True,
    )
