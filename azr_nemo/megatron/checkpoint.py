"""A checkpoint of the trainer: weights, optimizer and schedule through Megatron's dist_checkpointing, loadable at another parallel layout.

DIRECTORY/weights/   slices-<rank>.safetensors; common.pt (step counts and settings, read with weights_only); metadata.json, rank 0's last
DIRECTORY/model/     config.json and tokenizer, so that the checkpoint stands alone
"""

import contextlib
import json
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import extract_matching_values
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.optimizer import MegatronOptimizer
from safetensors import SafetensorError

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written, write_file
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.huggingface import companion_files, read_companions
from azr_nemo.megatron.model import bare
from azr_nemo.megatron.sharded_safetensors import METADATA, SafetensorsLoad, Slices

# Of a parameter group: what the run's settings decide. The scheduler sets the rate and the decay themselves.
SETTINGS = ("max_lr", "min_lr", "betas", "eps")


@dataclass(frozen=True)
class Snapshot:
    """What this rank writes of a checkpoint, at one moment of training. common: the bytes of common.pt, on rank 0 only, as companions, which
    gives the files that belong to the model besides its weights."""

    rank: int
    slices: Slices
    common: bytes = b""
    companions: Callable[[], dict[str, bytes]] | None = None

    def write(self, directory: Path) -> dict[str, Written]:
        """Fills DIRECTORY with this rank's files and syncs the weights; returns the size and the hash of each by its path in it.

        Not collective: it can run in a thread. Raises UserError when it cannot be written, a full disk included, or is not finite."""
        weights = directory / "weights"
        try:
            weights.mkdir(parents=True, exist_ok=True)
            path, slices = self.slices.write(weights, self.rank)
            written = {path: slices}
            files = {weights / "common.pt": self.common, weights / "metadata.json": json.dumps(METADATA).encode()} if self.rank == 0 else {}
            if self.companions is not None:
                (directory / "model").mkdir(exist_ok=True)
                files |= {directory / "model" / name: content for name, content in self.companions().items()}
            written |= {path: write_file(path, content) for path, content in files.items()}
        except (OSError, SafetensorError) as error:
            raise UserError(f"the checkpoint {directory} cannot be written: {error}") from error
        return {str(path.relative_to(directory)): file for path, file in written.items()}


def take_snapshot(actor: Actor, model_dir: Path, copy: bool) -> Snapshot:
    """The trainer's state now. Collective. copy: the tensors are copied to host memory, as many bytes as this rank's part of the checkpoint
    has; without it they are the trainer's own, to be written before it goes on."""
    with actor.platform.scope():
        state = _state(actor, optimizer=_has_moments(actor))
        snapshot = _snapshot(state, {"optimizer": "optimizer" in state}, copy)
    if snapshot.rank:
        return snapshot
    return replace(snapshot, companions=lambda: companion_files(read_companions(model_dir), actor.hf_config, actor.dtype))


def _snapshot(state: dict[str, Any], content: dict[str, Any], copy: bool) -> Snapshot:
    sharded, common = save_preprocess({**state, "content_metadata": content})
    rank, packed = dist.get_rank(), BytesIO()
    if rank == 0:
        torch.save(common, packed)  # now, as its step counts go on
    return Snapshot(rank, Slices.of(sharded, copy), packed.getvalue())


def save_checkpoint(actor: Actor, model_dir: Path, directory: Path) -> None:
    """Writes at once. Collective. Raises UserError when it cannot."""
    take_snapshot(actor, model_dir, copy=False).write(directory)
    dist.barrier()


def load_checkpoint(actor: Actor, directory: Path) -> None:
    """Takes back what save_checkpoint wrote, bit for bit. Collective. Raises UserError when it is absent, damaged, of another model or not finite.

    The learning rate and what else the settings say of the optimizer are those of this run, whatever the checkpoint was trained with."""
    with _loading(directory) as weights, actor.platform.scope():
        content = dist_checkpointing.load_content_metadata(weights) or {}
        actor.reset_optimizer()
        state = _state(actor, optimizer=bool(content.get("optimizer")), loading=True)
        state = dist_checkpointing.load(state, weights, sharded_strategy=SafetensorsLoad())
        _set_weights(actor.model, state["model"])
        if "optimizer" in state:
            _load_optimizer(actor.optimizer, state["optimizer"])
        else:
            actor.optimizer.reload_model_params()
        if "scheduler" in state:
            actor.scheduler.load_state_dict(state["scheduler"])
        actor.supervised = bool(state.get("supervised", False))
    if not math.isfinite(actor.growth()):
        raise UserError(
            f"the checkpoint {directory} cannot be loaded: its weights are not finite, so the run had diverged before it was written"
        )


def _load_optimizer(optimizer: MegatronOptimizer, state: dict[str, Any]) -> None:
    """Moments and step counts; a run that is resumed with other settings goes on with those."""
    settings = [{name: group[name] for name in SETTINGS if name in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


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
    """Writes a model's weights alone, in a job of one; load_checkpoint then starts with a new optimizer. Raises UserError when it cannot."""
    _snapshot({"model": _model_state(model)}, {"optimizer": False}, copy=False).write(directory)


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
