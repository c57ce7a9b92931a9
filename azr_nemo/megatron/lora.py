"""Low-rank adapters (LoRA, arXiv 2106.09685) of a Megatron model: W x + (alpha / rank) B A x, where A and B alone learn.

A target is one of Hugging Face's linear layers, though Megatron fuses q, k and v, and gate and up: each keeps an A and a B of its own, as PEFT's do. Of a
column-parallel layer B is sliced by outputs as the layer is, of a row-parallel one A by inputs; the other factor is whole on every rank.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor

from azr_nemo.megatron.architecture import LINEARS, ROW_PARALLEL, Architecture, linear_shapes
from azr_nemo.settings.machine import LoraConfig


class Adapters(MegatronModule):
    """The adapters of one layer, those of this rank's slices. lora_A: [rank, inputs] and lora_B: [outputs, rank], by target."""

    def __init__(self, config: Any, lora: LoraConfig, a: Architecture, layer: int, seed: int) -> None:
        """layer: counted from 0 over all stages. A is drawn as PEFT draws it, the same whatever the layout; B is zero."""
        super().__init__(config=config)
        self.scale, self.architecture = lora.alpha / lora.rank, a
        self.lora_A, self.lora_B = torch.nn.ParameterDict(), torch.nn.ParameterDict()
        size, rank = parallel_state.get_tensor_model_parallel_world_size(), parallel_state.get_tensor_model_parallel_rank()
        for number, (target, (outputs, inputs)) in enumerate(linear_shapes(a).items()):
            if target not in lora.targets:
                continue
            generator = torch.Generator().manual_seed(seed * 1_000_003 + layer * len(linear_shapes(a)) + number)
            bound = 1 / math.sqrt(inputs)  # Kaiming's uniform with a = sqrt(5)
            whole = torch.empty(lora.rank, inputs).uniform_(-bound, bound, generator=generator)
            row = target in ROW_PARALLEL
            first = whole.chunk(size, 1)[rank] if row else whole
            second = torch.zeros(outputs if row else outputs // size, lora.rank)
            for factors, value, sliced, dim in ((self.lora_A, first, row, 1), (self.lora_B, second, not row, 0)):
                parameter = torch.nn.Parameter(value.to(config.params_dtype).contiguous())
                set_tensor_model_parallel_attributes(parameter, sliced, dim if sliced else -1, 1)
                # Each rank has its part of the positions there: Megatron sums the gradients of the parts.
                parameter.sequence_parallel = config.sequence_parallel and not sliced
                factors[target] = parameter

    def add(self, targets: tuple[str, ...], x: Tensor) -> Tensor | float:
        """What the adapters add to a linear layer's output, its inputs and outputs sliced as Megatron has them."""
        present = [target for target in targets if target in self.lora_A]
        if not present:
            return 0.0
        if targets[0] in ROW_PARALLEL:
            (target,) = present
            partial = F.linear(x, self.lora_A[target])
            spread = (
                reduce_scatter_to_sequence_parallel_region if self.config.sequence_parallel else reduce_from_tensor_model_parallel_region
            )
            return F.linear(spread(partial), self.lora_B[target]) * self.scale
        narrow = F.linear(x, torch.cat([self.lora_A[target] for target in present]))
        if self.config.sequence_parallel:
            narrow = gather_from_sequence_parallel_region(narrow)
        else:
            narrow = copy_to_tensor_model_parallel_region(narrow)
        parts = dict(zip(present, narrow.chunk(len(present), -1), strict=True))
        outputs = [self._output(target, parts.get(target), narrow) for target in targets]
        return self._fused(outputs, -1) * self.scale

    def _output(self, target: str, narrow: Tensor | None, like: Tensor) -> Tensor:
        if narrow is not None:
            return F.linear(narrow, self.lora_B[target])
        outputs = linear_shapes(self.architecture)[target][0] // parallel_state.get_tensor_model_parallel_world_size()
        return like.new_zeros(*like.shape[:-1], outputs)

    def _fused(self, parts: list[Tensor], dim: int) -> Tensor:
        """The parts as Megatron lays them out along dim: query heads, key and value for each kv head; gate, then up."""
        if len(parts) != 3:
            return torch.cat(parts, dim)
        dim = dim % parts[0].dim()
        groups = self.architecture.kv_heads // parallel_state.get_tensor_model_parallel_world_size()
        return torch.cat([part.unflatten(dim, (groups, -1)) for part in parts], dim + 1).flatten(dim, dim + 1)

    @torch.no_grad()
    def merged(self, targets: tuple[str, ...], weight: Tensor) -> Tensor:
        """This rank's slice of a linear layer's weight with the adapters in it, in the weight's dtype; the sum is taken in fp32."""
        if not any(target in self.lora_A for target in targets):
            return weight
        size = parallel_state.get_tensor_model_parallel_world_size()
        parts = []
        for target in targets:
            if target in self.lora_A:
                parts.append(self.lora_B[target].float() @ self.lora_A[target].float())
            else:
                outputs, inputs = linear_shapes(self.architecture)[target]
                parts.append(weight.new_zeros(outputs // size, inputs, dtype=torch.float32))
        return (weight.float() + self._fused(parts, 0) * self.scale).to(weight.dtype)

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None) -> dict[str, Any]:
        """For Megatron's checkpoints: loadable at another layout, as the layers are."""
        state = self.state_dict(prefix="", keep_vars=True)
        sliced = {
            name: 1 if name.startswith("lora_A") else 0 for name in state if (_target(name) in ROW_PARALLEL) == name.startswith("lora_A")
        }
        return make_sharded_tensors_for_checkpoint(state, prefix, sliced, sharded_offsets)


def _target(name: str) -> str:
    """Of lora_A.q_proj."""
    return name.rpartition(".")[2]


def attach(gpt: torch.nn.Module, lora: LoraConfig, a: Architecture, seed: int) -> None:
    """Freezes a model's weights and gives each of its layers adapters, which its linear layers add by themselves from now on."""
    gpt.requires_grad_(False)
    for layer in gpt.decoder.layers:
        layer.adapters = Adapters(gpt.config, lora, a, layer.layer_number - 1, seed).to(next(gpt.parameters()).device)
        for path, targets in LINEARS.items():
            layer.get_submodule(path).register_forward_hook(_adding(layer.adapters, targets))


def _adding(adapters: Adapters, targets: tuple[str, ...]) -> Any:
    def hook(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        return output[0] + adapters.add(targets, inputs[0]), output[1]

    return hook
