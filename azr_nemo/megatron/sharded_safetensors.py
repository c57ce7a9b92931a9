"""The format of a checkpoint's tensors: each rank writes its slices to a safetensors file, whose header describes them.

Megatron's own format keeps its index as a pickle, which runs code when it is loaded, and forks writer processes behind a spawned manager.
Here nothing is pickled and nothing forks: slices are copied to host memory and written from there by a thread, and loading reads only the
bytes that a rank's slices overlap, so a checkpoint can be loaded at any parallel layout.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.core import CheckpointingException
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from azr_nemo import progress
from azr_nemo.file_hashes import Written
from azr_nemo.megatron.finite_weights import require_finite
from azr_nemo.megatron.slabs import Slab

BACKEND, VERSION = "safetensors", 1
LAYOUT = "layout"  # the metadata's one entry
METADATA = {"sharded_backend": BACKEND, "sharded_backend_version": VERSION, "common_backend": "torch", "common_backend_version": 1}


@dataclass(frozen=True)
class Slices:
    """This rank's slices of a sharded state. tensors: by the name that they have in the file; layout: which key, offset and global shape
    belongs to each name, and the number of files."""

    tensors: dict[str, Tensor]
    layout: str

    @classmethod
    def of(cls, slabs: Iterable[Slab], copy: bool) -> Self:
        """copy: into host memory of their own, so that they stay what they are while training goes on; tensors of a GPU are copied in any case,
        once."""
        tensors: dict[str, Tensor] = {}
        slices: dict[str, dict[str, Any]] = {}
        for slab in slabs:
            name = str(len(tensors))
            data = slab.data.detach().to("cpu", copy=copy, memory_format=torch.contiguous_format)
            tensors[name] = data.contiguous()
            slices[name] = {"key": slab.key, "offset": slab.offset, "shape": slab.whole}
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


def require_format(folder: Path) -> None:
    """Raises CheckpointingException for a checkpoint in another format, or in another version of this one."""
    found = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    if (backend := found.get("sharded_backend")) != BACKEND:
        raise CheckpointingException(f"its tensors are stored as {backend}, not as {BACKEND}")
    if (version := found.get("sharded_backend_version")) != VERSION:
        raise CheckpointingException(f"its format has version {version}, not {VERSION}")


def load(slabs: Sequence[Slab], folder: Path) -> None:
    """Sets the memory of each slab from whichever stored slices overlap it. Collective.

    Raises CheckpointingException for a missing file, tensor or part of one and for a tensor of the model too many, and SafetensorError for a
    damaged file."""
    with ExitStack() as stack:
        stored = _open(folder, stack)
        _refuse_others(stored, {slab.key for slab in slabs})
        progress.expect(len(slabs), "tensors")
        for slab in slabs:
            _fill(slab, stored.get(slab.key, []))
            progress.advance()


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


@torch.no_grad()
def _fill(wanted: Slab, stored: list[_Stored]) -> None:
    if not stored:
        raise CheckpointingException(f"it has no tensor {wanted.key}")
    if stored[0].global_shape != wanted.whole and not wanted.padded:
        raise CheckpointingException(f"its tensor {wanted.key} has shape {stored[0].global_shape}, not {wanted.whole}")
    target, found = wanted.data, 0
    if wanted.padded:
        target.zero_()
    for part in stored:
        for here, there in _overlap(target, wanted.offset, part):
            piece = part.file.get_slice(part.name)[there]
            if piece.dtype != target.dtype:
                raise CheckpointingException(f"its tensor {wanted.key} is {piece.dtype}, not {target.dtype}")
            target[here].copy_(piece)
            found += piece.numel()
    # A vocabulary padded for another layout may be shorter than this one's: what is beyond it is padding, and stays zero.
    if found != target.numel() and not wanted.padded:
        raise CheckpointingException(f"a part of its tensor {wanted.key} is missing")


def _overlap(target: Tensor, offset: tuple[int, ...], part: _Stored) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    here, there = [], []
    for size, start, stored_size, stored_start in zip(target.shape, offset, part.shape, part.offset, strict=True):
        low, high = max(start, stored_start), min(start + size, stored_start + stored_size)
        if low >= high:
            return
        here.append(slice(low - start, high - start))
        there.append(slice(low - stored_start, high - stored_start))
    yield tuple(here), tuple(there)
