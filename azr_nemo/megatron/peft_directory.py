"""A PEFT directory: adapter_config.json and adapter_model.safetensors, the form in which adapters go from one program to another."""

import json
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from safetensors import SafetensorError, safe_open

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import ROW_PARALLEL
from azr_nemo.megatron.finite_weights import require_finite
from azr_nemo.settings.machine import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
# What would make its adapters compute something else than B A x.
PLAIN = {
    "peft_type": "LORA",
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
}


def peft_name(layer: int, target: str, factor: str) -> str:
    """A tensor's name. factor: lora_A, [rank, inputs], or lora_B, [outputs, rank]."""
    return f"base_model.model.model.layers.{layer}.{'self_attn' if target in ATTENTION else 'mlp'}.{target}.{factor}.weight"


def adapter_config(lora: LoraConfig, base: str) -> dict[str, Any]:
    """adapter_config.json. base: the model that the adapters belong to."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(lora.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


@torch.no_grad()
def load_adapters(gpt: torch.nn.Module, lora: LoraConfig) -> None:
    """Sets this rank's slices of a model's adapters from the directory `model.lora.path`. Raises UserError when it is not of this model and rank."""
    path = Path(lora.path)
    _check_config(path, lora)
    size, rank = parallel_state.get_tensor_model_parallel_world_size(), parallel_state.get_tensor_model_parallel_rank()
    try:
        with safe_open(path / WEIGHTS, framework="pt") as file:
            names = set(file.keys())
            for layer in gpt.decoder.layers:
                for factor, parameters in (("lora_A", layer.adapters.lora_A), ("lora_B", layer.adapters.lora_B)):
                    for target, parameter in parameters.items():
                        name = peft_name(layer.layer_number - 1, target, factor)
                        if name not in names:
                            raise UserError(
                                f"{path} has no tensor {name}: its adapters are not of this model, or not of all model.lora.targets"
                            )
                        whole = require_finite(file.get_tensor(name), name, path)
                        if sliced := (target in ROW_PARALLEL) == (factor == "lora_A"):
                            whole = whole.chunk(size, 1 if factor == "lora_A" else 0)[rank]
                        if whole.shape != parameter.shape:
                            raise UserError(
                                f"{path}: its tensor {name} has shape {tuple(whole.shape)}{' a rank' if sliced else ''}, "
                                f"expected {tuple(parameter.shape)}: the adapters are of another model"
                            )
                        parameter.copy_(whole)
    except (OSError, SafetensorError) as error:
        raise UserError(f"model.lora.path={path}: {WEIGHTS} cannot be read ({error})") from None


def _check_config(path: Path, lora: LoraConfig) -> None:
    try:
        said = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model.lora.path={path} is no PEFT directory: its {CONFIG} cannot be read ({error})") from None
    for name, plain in PLAIN.items():
        if (said.get(name) or plain) != plain:
            raise UserError(f"model.lora.path={path}: {CONFIG} says {name}={said[name]}, of which only {plain} can be gone on with")
    for name, key, wanted in (("model.lora.rank", "r", lora.rank), ("model.lora.alpha", "lora_alpha", lora.alpha)):
        if said.get(key) != wanted:
            raise UserError(f"{name}={wanted}, but the adapters in {path} have {key}={said.get(key)}: set {name}={said.get(key)}")
    if set(said.get("target_modules") or []) != set(lora.targets):
        raise UserError(
            f"model.lora.targets=[{','.join(lora.targets)}], but the adapters in {path} are of {said.get('target_modules')}: name those"
        )
