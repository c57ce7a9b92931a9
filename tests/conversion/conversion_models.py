"""Tiny models for conversions, and the NeMo folder that megatron-core's own writer makes of one."""

import json
from pathlib import Path

import torch
from megatron.core import dist_checkpointing
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny_models import write_model
from torch import Tensor

from azr_nemo.conversion.nemo_config import LLAMA3_SCALING, to_model_config
from azr_nemo.megatron import distributed
from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.megatron.huggingface import open_weights, read_config
from azr_nemo.megatron.model import bare, build_model
from azr_nemo.megatron.platform import choose_platform
from azr_nemo.megatron.weight_stream import import_weights
from azr_nemo.settings.schema import EngineConfig

FAMILIES = ("llama-tied", "llama-3.1", "qwen2-tied", "qwen2-untied", "qwen3")
# Of veRL: ranks and how they are laid out, with the family of the model: its 257 rows are cut unevenly by 2, 3 and 4.
VERL = {
    "fsdp2": (2, "qwen2-untied"),
    "fsdp2-dims": (4, "llama-tied"),
    "fsdp2-ddp": (4, "qwen3"),
    "fsdp1": (3, "llama-tied"),
    "cuda": (2, "qwen2-untied"),
}


def write_source(folder: Path, family: str, dtype: torch.dtype = torch.float32) -> Path:
    """A Hugging Face directory with tokenizer, generation settings and chat template; llama-3.1 is untied and has that model's rope scaling."""
    write_model(folder, "llama-untied" if family == "llama-3.1" else family, dtype)
    if family == "llama-3.1":
        edit_json(folder / "config.json", rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3_SCALING})
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert (folder / "generation_config.json").is_file()
    return folder


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a Hugging Face directory."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def same_weights(a: Path, b: Path) -> bool:
    before, after = weights(a), weights(b)
    return before.keys() == after.keys() and all(
        before[name].dtype == after[name].dtype and torch.equal(before[name], after[name]) for name in before
    )


def save_as_megatron_does(hf: Path, folder: Path) -> None:
    """NeMo's folder of a model, its weights written by megatron-core's own `torch_dist` strategy, under NeMo's prefix."""
    config = read_config(hf)
    platform = choose_platform("cpu")
    distributed.start(platform, 1, 1)
    model = build_model(config, platform, EngineConfig(), torch.float32)
    with platform.scope(), open_weights(hf, config) as opened:
        import_weights(model, config, opened.get)
        (folder / "model_weights").mkdir(parents=True)
        dist_checkpointing.save(bare(model).sharded_state_dict(prefix="model."), str(folder / "model_weights"))
    described = to_model_config(config, read_architecture(config), torch.float32, str(hf))
    (folder / "model_config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(described)))
