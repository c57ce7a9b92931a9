"""Megatron's `torch_dist` format: .distcp files of tensors, and a pickled index that is read without running anything in it.

A pickle can call whatever it names. Here a name is either on the list below, and then gives a passive record that keeps its arguments and
attributes, or the file is refused; no class or function of torch is reached. The tensors themselves are read by torch.load(weights_only=True).
"""

import io
import pickle
from functools import partial
from typing import Any

import torch
from torch import Tensor

from azr_nemo.conversion.archive import Archive
from azr_nemo.conversion.stored import Chunk, StoredTensor
from azr_nemo.errors import UserError

INDEX = ".metadata"
_CHECKPOINT, _SHARDED = "torch.distributed.checkpoint.", "torch.distributed._shard.sharded_tensor.metadata"
_RECORDS = {
    *((_CHECKPOINT + "metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    *(
        (_CHECKPOINT + "metadata", name)
        for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties")
    ),
    *((_CHECKPOINT + "filesystem", name) for name in ("_StorageInfo", "_StoragePrefix")),
    *((_SHARDED, name) for name in ("TensorProperties", "MEM_FORMAT_ENCODING")),
    # Later versions of Megatron also keep how the tensors were to be written.
    *((_CHECKPOINT + "planner", name) for name in ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData")),
    ("torch.serialization", "_get_layout"),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("Path", "PosixPath")),
}


class _Record:
    """Stands in for an object of the index: keeps what the pickle says of it and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        else:
            self.arguments = state


class _Unpickler(pickle.Unpickler):  # noqa: S301 - it finds no class but ours
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _RECORDS:
            return _Record
        if (module, name) == ("torch", "Size"):
            return tuple
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        value = getattr(torch, name, None) if module == "torch" else None
        if isinstance(value, torch.dtype):
            return value
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is nothing that an index needs")


def open_torch_dist(archive: Archive, folder: str) -> dict[str, StoredTensor]:
    """The model's tensors in the folder, by key; the optimizer's are left alone. Raises UserError for a damaged or suspicious index."""
    prefix = f"{folder}/" if folder else ""
    content = archive.read(prefix + INDEX)
    try:
        index = _Unpickler(io.BytesIO(content)).load()  # noqa: S301 - restricted to passive records
        found: dict[str, StoredTensor] = {}
        for key, described in index.state_dict_metadata.items():
            if hasattr(described, "chunks") and not key.startswith("optimizer."):
                dtype = _dtype(described.properties)
                found[key] = StoredTensor(str(archive.path), key, tuple(described.size), dtype)
        sizes = {(key, tuple(chunk.offsets)): tuple(chunk.sizes) for key in found for chunk in index.state_dict_metadata[key].chunks}
        for place, where in index.storage_data.items():
            if place.fqn in found:
                offset = tuple(place.offset)
                size = sizes[place.fqn, offset]
                load = partial(_load, archive, f"{prefix}{where.relative_path}", where.offset, where.length, size)
                found[place.fqn].chunks.append(Chunk(offset, size, load))
    except (pickle.UnpicklingError, AttributeError, KeyError, TypeError, ValueError, EOFError, IndexError, ImportError) as error:
        raise UserError(f"{archive.path}: its index {prefix}{INDEX} cannot be read: {error}") from error
    return found


def _dtype(properties: Any) -> torch.dtype:
    # torch pickles them as a tuple that begins with the dtype.
    dtype = properties.arguments[0]
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor's dtype is not told")
    return dtype


def _load(archive: Archive, file: str, offset: int, length: int, size: tuple[int, ...]) -> Tensor:
    content = archive.array(file)[offset : offset + length]
    try:
        tensor = torch.load(io.BytesIO(content.data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise UserError(f"{archive.path} is damaged: a tensor in {file} cannot be read ({error})") from error
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != size:
        raise UserError(f"{archive.path} is damaged: a tensor in {file} is not what the index says")
    return tensor
