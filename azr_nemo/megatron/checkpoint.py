"""A checkpoint of the trainer: weights, optimizer and schedule through Megatron's dist_checkpointing, loadable at another parallel layout.

DIRECTORY/weights/   slices-<rank>.safetensors; common.pt (step counts and settings, read with weights_only); metadata.json, written last
DIRECTORY/model/     config.json and tokenizer, so that the checkpoint stands alone
"""

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import extract_matching_values
from megatron.core.dist_checkpointing.mapping import ShardedObject
from safetensors import SafetensorError

from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.huggingface import copy_companions
from azr_nemo.megatron.model import bare
from azr_nemo.megatron.sharded_safetensors import SafetensorsLoad, SafetensorsSave


def save_checkpoint(actor: Actor, model_dir: Path, directory: Path) -> None:
    """Writes into an existing directory. Collective. Raises UserError when it cannot be written, a full disk included."""
    weights = directory / "weights"
    try:
        if dist.get_rank() == 0:
            weights.mkdir()
            (directory / "model").mkdir()
            copy_companions(model_dir, actor.hf_config, actor.dtype, directory / "model")
        dist.barrier()
        with actor.platform.scope():
            state = _state(actor, optimizer=_has_moments(actor))
            content = {"optimizer": "optimizer" in state}
            dist_checkpointing.save(state, str(weights), sharded_strategy=SafetensorsSave(), content_metadata=content)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the checkpoint {directory} cannot be written: {error}") from error
    except RuntimeError as error:
        # torch.save reports a full disk as a failure of its archive writer.
        if "write" not in str(error).lower():
            raise
        raise UserError(f"the checkpoint {directory} cannot be written, perhaps because its disk is full: {error}") from error


def load_checkpoint(actor: Actor, directory: Path) -> None:
    """Takes back what save_checkpoint wrote, bit for bit. Collective. Raises UserError when it is absent, damaged or of another model."""
    with _loading(directory) as weights, actor.platform.scope():
        content = dist_checkpointing.load_content_metadata(weights) or {}
        actor.reset_optimizer()
        state = _state(actor, optimizer=bool(content.get("optimizer")), loading=True)
        state = dist_checkpointing.load(state, weights, sharded_strategy=SafetensorsLoad())
        _set_weights(actor.model, state["model"])
        if "optimizer" in state:
            actor.optimizer.load_state_dict(state["optimizer"])
        else:
            actor.optimizer.reload_model_params()
        if "scheduler" in state:
            actor.scheduler.load_state_dict(state["scheduler"])
        actor.supervised = bool(state.get("supervised", False))


def load_weights(model: torch.nn.Module, directory: Path) -> None:
    """Sets a model's weights alone, without any optimizer, from a checkpoint directory. Raises UserError as load_checkpoint does."""
    with _loading(directory) as weights:
        state = dist_checkpointing.load({"model": _model_state(model)}, weights, sharded_strategy=SafetensorsLoad())
        _set_weights(model, state["model"])


@contextlib.contextmanager
def _loading(directory: Path) -> Iterator[str]:
    """Gives the directory of the weights, as Megatron wants it, and turns whatever is wrong with them into a UserError."""
    weights = directory / "weights"
    try:
        for name in ("metadata.json", "common.pt"):
            if not (weights / name).is_file():
                raise CheckpointingException(f"weights/{name} is missing, so it was never completed")
        yield str(weights)
    except (CheckpointingException, SafetensorError, OSError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"the checkpoint {directory} cannot be loaded: {error}") from error
    except RuntimeError as error:
        raise UserError(f"the checkpoint {directory} cannot be loaded, it seems to be damaged: {error}") from error


def save_weights(model: torch.nn.Module, directory: Path) -> None:
    """Writes a model's weights alone; load_checkpoint then starts with a new optimizer."""
    weights = directory / "weights"
    weights.mkdir(parents=True)
    dist_checkpointing.save(
        {"model": _model_state(model)}, str(weights), sharded_strategy=SafetensorsSave(), content_metadata={"optimizer": False}
    )


def _state(actor: Actor, optimizer: bool, loading: bool = False) -> dict[str, Any]:
    model = _model_state(actor.model)
    state = {"model": model, "scheduler": actor.scheduler.state_dict(), "supervised": actor.supervised}
    if optimizer:
        state["optimizer"] = actor.optimizer.sharded_state_dict(model, is_loading=loading, metadata=_metadata(actor.config.engine))
    return state


def _model_state(model: torch.nn.Module) -> dict[str, Any]:
    state = bare(model).sharded_state_dict(metadata=_metadata(None))
    # Extra states are TransformerEngine's FP8 scales, pickled; nothing here trains in FP8.
    _, tensors = extract_matching_values(state, lambda value: isinstance(value, ShardedObject))
    return tensors


def _metadata(engine: Any) -> dict[str, Any]:
    metadata = {"dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True), "singleton_local_shards": False}
    if engine is not None and engine.distributed_optimizer:
        metadata["distrib_optim_sharding_type"] = "fully_reshardable"
    return metadata


def _set_weights(model: torch.nn.Module, state: dict[str, Any]) -> None:
    missing, unexpected = bare(model).load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("_extra_state")]
    if missing or unexpected:
        raise CheckpointingException(f"its tensors are not this model's: {', '.join([*missing, *unexpected][:3])}")


def _has_moments(actor: Actor) -> bool:
    parts = getattr(actor.optimizer, "chained_optimizers", [actor.optimizer])
    return any(part.optimizer is not None and part.optimizer.state for part in parts)
