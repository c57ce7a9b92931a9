"""A checkpoint of the trainer: weights, optimizer and schedule as Megatron describes their parts, loadable at another parallel layout.

DIRECTORY/weights/   slices-<rank>.safetensors; common.pt (step counts and settings, read with weights_only); metadata.json, rank 0's last
DIRECTORY/model/     config.json and tokenizer, so that the checkpoint stands alone
"""

import contextlib
import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import dict_list_map_inplace, extract_matching_values, merge
from megatron.core.dist_checkpointing.mapping import LocalNonpersistentObject, ShardedBase, ShardedObject
from megatron.core.dist_checkpointing.utils import extract_nonpersistent, extract_sharded_base
from megatron.core.optimizer import MegatronOptimizer
from safetensors import SafetensorError

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written, write_file
from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.huggingface import companion_files, read_companions
from azr_nemo.megatron.model import bare
from azr_nemo.megatron.sharded_safetensors import METADATA, Slices, load, require_format
from azr_nemo.megatron.slabs import Slab, model_slabs, optimizer_slabs

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
        model = _model_state(actor.model)
        state, slabs = _state(actor, model), []
        content = {"optimizer": _has_moments(actor), "distributed_optimizer": actor.config.engine.distributed_optimizer}
        if all(content.values()):
            state["optimizer"] = actor.optimizer.state_dict()
            slabs = list(optimizer_slabs(actor.optimizer, model, saving=True))
        elif content["optimizer"]:
            state["optimizer"] = actor.optimizer.sharded_state_dict(model, metadata=_metadata())
        snapshot = _snapshot(state, content, copy, slabs)
    if snapshot.rank:
        return snapshot
    return replace(snapshot, companions=lambda: companion_files(read_companions(model_dir), actor.hf_config, actor.dtype))


def _snapshot(state: dict[str, Any], content: dict[str, Any], copy: bool, slabs: Iterable[Slab] = ()) -> Snapshot:
    _, kept = extract_nonpersistent(state)
    sharded, common = extract_sharded_base(kept)
    rank, packed = dist.get_rank(), BytesIO()
    if rank == 0:
        torch.save({**common, "content_metadata": content}, packed)  # now, as its step counts go on
    return Snapshot(rank, Slices.of(chain(model_slabs(sharded, saving=True), slabs), copy), packed.getvalue())


def save_checkpoint(actor: Actor, model_dir: Path, directory: Path) -> None:
    """Writes at once. Collective. Raises UserError when it cannot."""
    take_snapshot(actor, model_dir, copy=False).write(directory)
    dist.barrier()


def load_checkpoint(actor: Actor, directory: Path) -> None:
    """Takes back what save_checkpoint wrote, bit for bit. Collective. Raises UserError when it is absent, damaged, of another model or not finite.

    The learning rate and what else the settings say of the optimizer are those of this run, whatever the checkpoint was trained with."""
    with _loading(directory) as (weights, common), actor.platform.scope():
        content = common.get("content_metadata") or {}
        sharded = actor.config.engine.distributed_optimizer
        if content.get("optimizer") and bool(content.get("distributed_optimizer")) != sharded:
            raise CheckpointingException(f"it was saved with engine.distributed_optimizer={str(not sharded).lower()}: set it so")
        actor.reset_optimizer()
        model, slabs = _model_state(actor.model), []
        state: dict[str, Any] = {"model": model}
        if content.get("optimizer") and sharded:
            _load_optimizer(actor.optimizer, common["optimizer"])  # makes the moments' memory
            slabs = list(optimizer_slabs(actor.optimizer, model, saving=False))
        elif content.get("optimizer"):
            state["optimizer"] = actor.optimizer.sharded_state_dict(model, is_loading=True, metadata=_metadata())
        load([*model_slabs(state, saving=False), *slabs], weights)
        if "optimizer" in state:
            merge(common, _live({"optimizer": state["optimizer"]}))
            _load_optimizer(actor.optimizer, common["optimizer"])
        elif not slabs:
            actor.optimizer.reload_model_params()
        if "scheduler" in common:
            actor.scheduler.load_state_dict(common["scheduler"])
        actor.supervised = bool(common.get("supervised", False))
    if not math.isfinite(actor.growth()):
        raise UserError(
            f"the checkpoint {directory} cannot be loaded: its weights are not finite, so the run had diverged before it was written"
        )


def _load_optimizer(optimizer: MegatronOptimizer, state: dict[str, Any]) -> None:
    """Moments and step counts; a run that is resumed with other settings goes on with those, which are the same for all groups. They are set first:
    from megatron-core 0.17 on groups are found by them."""
    own = {name: value for name, value in optimizer.param_groups[0].items() if name in SETTINGS}
    for group in state.get("optimizer", state)["param_groups"]:
        group.update(own)
    optimizer.load_state_dict(state)


def load_weights(model: torch.nn.Module, directory: Path) -> None:
    """Sets a model's weights alone, without any optimizer, from a checkpoint directory. Raises UserError as load_checkpoint does."""
    with _loading(directory) as (weights, _):
        load(list(model_slabs(_model_state(model), saving=False)), weights)


def _live(state: dict[str, Any]) -> dict[str, Any]:
    """Live tensors in the place of their descriptions, whose memory loading sets, and what is never stored."""
    own, _ = extract_matching_values(state, lambda value: isinstance(value, ShardedBase | LocalNonpersistentObject))
    return dict_list_map_inplace(lambda entry: entry.data if isinstance(entry, ShardedBase) else entry.unwrap(), own)


@contextlib.contextmanager
def _loading(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Gives the directory of the weights and what its common.pt says, and turns whatever is wrong with them into a UserError."""
    weights = directory / "weights"
    try:
        for name in ("metadata.json", "common.pt"):
            if not (weights / name).is_file():
                raise CheckpointingException(f"weights/{name} is missing, so it was never completed")
        require_format(weights)
        yield weights, torch.load(weights / "common.pt", map_location="cpu", weights_only=True)
    except (CheckpointingException, SafetensorError, OSError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"the checkpoint {directory} cannot be loaded: {error}") from error
    except RuntimeError as error:
        raise UserError(f"the checkpoint {directory} cannot be loaded, it seems to be damaged: {error}") from error


def save_weights(model: torch.nn.Module, directory: Path) -> None:
    """Writes a model's weights alone, in a job of one; load_checkpoint then starts with a new optimizer. Raises UserError when it cannot."""
    _snapshot({"model": _model_state(model)}, {"optimizer": False}, copy=False).write(directory)


def _state(actor: Actor, model: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "scheduler": actor.scheduler.state_dict(), "supervised": actor.supervised}


def _model_state(model: torch.nn.Module) -> dict[str, Any]:
    state = bare(model).sharded_state_dict(metadata=_metadata())
    # Extra states are TransformerEngine's FP8 scales, pickled; nothing here trains in FP8.
    _, tensors = extract_matching_values(state, lambda value: isinstance(value, ShardedObject))
    return tensors


def _metadata() -> dict[str, Any]:
    return {"dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True), "singleton_local_shards": False}


def _has_moments(actor: Actor) -> bool:
    """Collective: a rank whose shard of the optimizer is padding alone has none of its own."""
    parts = getattr(actor.optimizer, "chained_optimizers", [actor.optimizer])
    return bool(distributed.largest(any(part.optimizer is not None and part.optimizer.state for part in parts)))
