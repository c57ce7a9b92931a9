"""A format for Megatron's dist_checkpointing: each rank writes its slices to a safetensors file, whose header describes them.

Megatron's own format keeps its index as a pickle, which runs code when it is loaded, and forks writer processes behind a spawned manager.
Here nothing is pickled and nothing forks: slices are copied to host memory and written from there by a thread, and loading reads only the
bytes that a rank's slices overlap, so a checkpoint can be loaded at any parallel layout.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import dict_list_map_inplace, nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, is_main_replica
from megatron.core.dist_checkpointing.strategies.base import (
    LoadShardedStrategy,
    StrategyAction,
    register_default_strategy,
)
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from azr_nemo import progress
from azr_nemo.file_hashes import Written
from azr_nemo.megatron.finite_weights import require_finite

BACKEND, VERSION = "safetensors", 1
LAYOUT = "layout"  # the metadata's one entry
# Of a checkpoint: how Megatron finds out what to load it with.
METADATA = {"sharded_backend": BACKEND, "sharded_backend_version": VERSION, "common_backend": "torch", "common_backend_version": 1}


@dataclass(frozen=True)
class Slices:
    """This rank's slices of a sharded state. tensors: by the name that they have in the file; layout: which key, offset and global shape
    belongs to each name, and the number of files."""

    tensors: dict[str, Tensor]
    layout: str

    @classmethod
    def of(cls, sharded_state_dict: dict[str, Any], copy: bool) -> Self:
        """copy: into host memory of their own, so that they stay what they are while training goes on."""
        tensors: dict[str, Tensor] = {}
        slices: dict[str, dict[str, Any]] = {}
        for tensor in nested_values(sharded_state_dict):
            if isinstance(tensor, ShardedTensor) and is_main_replica(tensor.replica_id):
                name = str(len(tensors))
                data = _prepended(tensor).detach().to("cpu", copy=copy, memory_format=torch.contiguous_format)
                tensors[name] = data.contiguous()
                slices[name] = {"key": tensor.key, "offset": tensor.global_offset, "shape": tensor.global_shape}
        return cls(tensors, json.dumps({"slices": slices, "ranks": dist.get_world_size()}))

    def write(self, folder: Path, rank: int) -> tuple[Path, Written]:
        """Writes `slices-<rank>.safetensors` and syncs it; its path, and its hash made from memory.

        Raises OSError or SafetensorError when it cannot be written, and UserError for a tensor that is not finite: weights are known to be, an
        optimizer's moments may have overflowed."""
        path = folder / f"slices-{rank:05d}.safetensors"
        keys = json.loads(self.layout)["slices"]
        for name, tensor in self.tensors.items():
            require_finite(tensor, keys[name]["key"], "the trainer's state")
        # One entry: safetensors writes several in an order that changes from file to file, and equal states must give equal files.
        save_file(self.tensors, path, metadata={LAYOUT: self.layout})
        with path.open("rb") as file:
            os.fsync(file.fileno())
            length = file.read(8)
            header = file.read(int.from_bytes(length, "little"))
        return path, Written.of([length, header, *self._content(header)])

    def _content(self, header: bytes) -> Iterator[memoryview]:
        """The tensors' bytes in the order that the library gave them in the file (https://github.com/huggingface/safetensors#format)."""
        places = {name: entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__"}
        for name in sorted(places, key=places.__getitem__):
            yield memoryview(self.tensors[name].flatten().view(torch.uint8).numpy())


@dataclass(frozen=True)
class _Stored:
    file: Any
    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    global_shape: tuple[int, ...]


class SafetensorsLoad(LoadShardedStrategy):
    """Fills the asked-for slices, in place, from whichever stored ones overlap them."""

    def check_backend_compatibility(self, loaded_backend: str) -> None:
        if loaded_backend != BACKEND:
            raise CheckpointingException(f"its tensors are stored as {loaded_backend}, not as {BACKEND}")

    def check_version_compatibility(self, loaded_version: int) -> None:
        if loaded_version != VERSION:
            raise CheckpointingException(f"its format has version {loaded_version}, not {VERSION}")

    def load(self, sharded_state_dict: dict[str, Any], checkpoint_dir: str | Path) -> dict[str, Any]:
        """Raises CheckpointingException for a missing file, tensor or part of one and for a tensor too many, and SafetensorError for a damaged file."""
        with ExitStack() as stack:
            stored = _open(Path(checkpoint_dir), stack)
            _refuse_others(stored, {tensor.key for tensor in nested_values(sharded_state_dict)})
            progress.expect(len(list(nested_values(sharded_state_dict))), "tensors")
            return dict_list_map_inplace(lambda tensor: _fill(tensor, stored.get(tensor.key, [])), sharded_state_dict)

    def load_tensors_metadata(self, checkpoint_dir: str | Path) -> dict[str, ShardedTensor]:
        """The stored tensors by key, without data, as if unsharded."""
        with ExitStack() as stack:
            described = {}
            for key, parts in _open(Path(checkpoint_dir), stack).items():
                dtype = parts[0].file.get_tensor(parts[0].name).dtype
                whole = torch.empty(parts[0].global_shape, dtype=dtype, device="meta")
                described[key] = ShardedTensor.from_rank_offsets(key, whole).without_data()
            return described


def _open(folder: Path, stack: ExitStack) -> dict[str, list[_Stored]]:
    stored = defaultdict(list)
    paths, ranks = sorted(folder.glob("slices-*.safetensors")), None
    for path in paths:
        file = stack.enter_context(safe_open(path, framework="pt"))
        layout = json.loads((file.metadata() or {})[LAYOUT])
        ranks = layout["ranks"]
        for name, part in layout["slices"].items():
            shape = tuple(file.get_slice(name).get_shape())
            stored[part["key"]].append(_Stored(file, name, tuple(part["offset"]), shape, tuple(part["shape"])))
    if ranks != len(paths):
        raise CheckpointingException(f"{len(paths)} of its {ranks if ranks is not None else 'slices-*.safetensors'} files are there")
    return dict(stored)


def _refuse_others(stored: dict[str, list[_Stored]], own: set[str]) -> None:
    """Collective. A tensor of the model that no rank asks for would be lost in silence; an optimizer's may be left alone."""
    asked: list[set[str]] = [set()] * dist.get_world_size()
    dist.all_gather_object(asked, own)
    others = sorted(key for key in stored.keys() - set().union(*asked) if not key.startswith("optimizer."))
    if others:
        raise CheckpointingException(f"it has a tensor {others[0]}, which this model does not have")


def _prepended(tensor: ShardedTensor) -> Tensor:
    # A layer's parameter is a slice of one tensor that stacks all layers: the stacking axes come first and have length 1 here.
    return tensor.data.view((1,) * tensor.prepend_axis_num + tuple(tensor.local_shape))


@torch.no_grad()
def _fill(wanted: ShardedTensor, stored: list[_Stored]) -> Tensor:
    if not stored:
        raise CheckpointingException(f"it has no tensor {wanted.key}")
    if stored[0].global_shape != tuple(wanted.global_shape) and not wanted.allow_shape_mismatch:
        raise CheckpointingException(f"its tensor {wanted.key} has shape {stored[0].global_shape}, not {tuple(wanted.global_shape)}")
    wanted.init_data("cpu")
    target = _prepended(wanted)
    found = 0
    for part in stored:
        for here, there in _overlap(target, wanted.global_offset, part):
            piece = part.file.get_slice(part.name)[there]
            if piece.dtype != target.dtype:
                raise CheckpointingException(f"its tensor {wanted.key} is {piece.dtype}, not {target.dtype}")
            target[here] = piece.to(target.device)
            found += piece.numel()
    # A vocabulary padded for another layout may be shorter than this one's: what is beyond it is padding, and stays as it is.
    if found != target.numel() and not wanted.allow_shape_mismatch:
        raise CheckpointingException(f"a part of its tensor {wanted.key} is missing")
    progress.advance()
    return wanted.data


def _overlap(target: Tensor, offset: tuple[int, ...], part: _Stored) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    here, there = [], []
    for size, start, stored_size, stored_start in zip(target.shape, offset, part.shape, part.offset, strict=True):
        low, high = max(start, stored_start), min(start + size, stored_start + stored_size)
        if low >= high:
            return
        here.append(slice(low - start, high - start))
        there.append(slice(low - stored_start, high - stored_start))
    yield tuple(here), tuple(there)


# Megatron finds how to load a checkpoint by the names in its metadata.json.
register_default_strategy(StrategyAction.LOAD_SHARDED, BACKEND, VERSION, SafetensorsLoad())
