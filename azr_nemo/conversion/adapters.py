"""Adapters (LoRA) in a run's checkpoint: merged into the weights for whoever reads the model, and by themselves as a PEFT directory."""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from azr_nemo.conversion.pieces import Piece
from azr_nemo.conversion.stored import StoredTensor
from azr_nemo.errors import UserError
from azr_nemo.megatron.huggingface import written_aside
from azr_nemo.megatron.peft_directory import CONFIG, WEIGHTS, adapter_config, peft_name
from azr_nemo.settings.compose import from_yaml
from azr_nemo.settings.machine import LoraConfig

KEY = re.compile(r"decoder\.layers\.adapters\.(lora_[AB])\.(\w+)")
TARGET = re.compile(r"(model\.layers\.\d+\.(?:self_attn|mlp)\.(\w+))\.weight")


def adapters_among(tensors: dict[str, StoredTensor]) -> dict[tuple[str, str], StoredTensor]:
    """Those of a checkpoint, each [layers, ...], by factor (lora_A, lora_B) and target."""
    return {(match[1], match[2]): stored for key, stored in tensors.items() if (match := KEY.fullmatch(key))}


def settings_of(checkpoint: Path) -> LoraConfig:
    """What the run said of its adapters. Raises UserError when its settings are not there."""
    return from_yaml(checkpoint / "config.yaml").model.lora


def merged(
    load: Callable[[Piece], list[Tensor]], adapters: dict[tuple[str, str], StoredTensor], lora: LoraConfig
) -> Callable[[Piece], list[Tensor]]:
    """Reads a piece's tensors with their adapters in them, in the weights' dtype; the sum is taken in fp32, as in the run's own weight stream."""

    def with_adapters(name: str, layer: int | None, tensor: Tensor) -> Tensor:
        match = TARGET.fullmatch(name)
        if match is None or ("lora_A", match[2]) not in adapters:
            return tensor
        first, second = (adapters[factor, match[2]].read(layer).float() for factor in ("lora_A", "lora_B"))
        return (tensor.float() + second @ first * (lora.alpha / lora.rank)).to(tensor.dtype)

    def loaded(piece: Piece) -> list[Tensor]:
        return [with_adapters(name, piece.layer, tensor) for name, tensor in zip(piece.names, load(piece), strict=True)]

    return loaded


def write_peft(checkpoint: Path, out: Path, open_slices: Callable[[Path, ExitStack], dict[str, StoredTensor]]) -> int:
    """Writes the adapters of a run's checkpoint as a PEFT directory and returns how many tensors. Raises UserError when it has none, or when the
    directory is there or cannot be written."""
    with ExitStack() as stack:
        adapters = adapters_among(open_slices(checkpoint, stack))
        if not adapters:
            raise UserError(f"{checkpoint} has no adapters: the run had model.lora.rank=0; convert the whole model with --to hf")
        config = from_yaml(checkpoint / "config.yaml")
        tensors: dict[str, Tensor] = {}
        for (factor, target), stored in adapters.items():
            for layer in range(stored.shape[0]):
                tensors[peft_name(layer, target, factor)] = stored.read(layer).clone()
        with written_aside(out) as aside:
            aside.mkdir()
            save_file(tensors, aside / WEIGHTS, metadata={"format": "pt"})
            written: dict[str, Any] = adapter_config(config.model.lora, config.model.path)
            (aside / CONFIG).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return len(tensors)
