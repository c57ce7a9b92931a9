"""Between a run's checkpoint and a Hugging Face directory, in one process on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.config import EngineConfig
from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.megatron.checkpoint import load_weights, save_weights
from azr_nemo.megatron.huggingface import copy_companions, open_weights, read_config, save_hf
from azr_nemo.megatron.model import build_model
from azr_nemo.megatron.platform import Platform, choose_platform
from azr_nemo.megatron.weights import export_weights, import_weights


def checkpoint_to_hf(checkpoint_dir: Path, out_dir: Path) -> None:
    """Writes the checkpoint's model (`weights/`, `model/`) as a Hugging Face directory that transformers loads.

    Raises UserError when the checkpoint is absent or damaged, or when out_dir exists.
    """
    with open_checkpoint(checkpoint_dir) as (config, stream):
        save_hf(stream, config, checkpoint_dir / "model", out_dir)


@contextmanager
def open_checkpoint(checkpoint_dir: Path) -> Iterator[tuple[PretrainedConfig, Iterator[tuple[str, Tensor]]]]:
    """The configuration and the weight stream of a run's checkpoint. Raises UserError when it is absent or damaged."""
    model_dir = checkpoint_dir / "model"
    if not model_dir.is_dir():
        raise UserError(f"{checkpoint_dir} is not a checkpoint: it has no model/ in it")
    config = read_config(model_dir)
    platform, model = _build(config)
    with platform.scope():
        load_weights(model, checkpoint_dir)
    yield config, export_weights(model, config)


def hf_to_checkpoint(hf_dir: Path, out_dir: Path) -> None:
    """Writes a Hugging Face model as a checkpoint's `weights/` and `model/`, without optimizer state.

    Raises UserError when hf_dir is no such model, or when out_dir exists.
    """
    if out_dir.exists():
        raise UserError(f"{out_dir} already exists: choose another directory")
    config = read_config(hf_dir)
    platform, model = _build(config)
    with platform.scope(), open_weights(hf_dir) as get:
        import_weights(model, config, get)
        save_weights(model, out_dir)
    (out_dir / "model").mkdir()
    copy_companions(hf_dir, config, config.dtype, out_dir / "model")


def _build(config: PretrainedConfig) -> tuple[Platform, torch.nn.Module]:
    if config.dtype not in (torch.bfloat16, torch.float32):
        raise UserError(f"the model's dtype is {config.dtype}: only bfloat16 and float32 can be converted without loss")
    platform = choose_platform("cpu")
    distributed.start(platform, 1, 1)
    return platform, build_model(config, platform, EngineConfig(), config.dtype)
