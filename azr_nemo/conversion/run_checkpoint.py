"""This project's checkpoints as a source and as a target, without building a model (their format: azr_nemo/megatron/sharded_safetensors.py)."""

import io
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.conversion.adapters import adapters_among, merged, settings_of
from azr_nemo.conversion.hugging_face import Progress
from azr_nemo.conversion.pieces import Piece
from azr_nemo.conversion.source import Source, megatron_loader, refuse_unknown
from azr_nemo.conversion.stored import Chunk, StoredTensor
from azr_nemo.errors import UserError
from azr_nemo.file_hashes import compare_recorded
from azr_nemo.megatron.huggingface import read_companions, read_config, write_companions
from azr_nemo.megatron.sharded_safetensors import BACKEND, LAYOUT, METADATA, Slices


@contextmanager
def open_checkpoint(path: Path) -> Iterator[tuple[PretrainedConfig, Iterator[tuple[str, Tensor]]]]:
    """The configuration and the weight stream of a run's checkpoint. Raises UserError when it is absent or damaged."""
    with open_checkpoint_source(path) as source:
        yield source.config, source.stream()


@contextmanager
def open_checkpoint_source(path: Path) -> Iterator[Source]:
    """Raises UserError when the checkpoint is absent, was never completed or is damaged."""
    model_dir = path / "model"
    if not model_dir.is_dir():
        raise UserError(f"{path} is not a checkpoint: it has no model/ in it")
    compare_recorded(path, "weights", "model")
    config = read_config(model_dir)
    with ExitStack() as stack:
        tensors = open_slices(path, stack)
        load, adapters = megatron_loader(tensors, "", path), adapters_among(tensors)
        if adapters:
            load = merged(load, adapters, settings_of(path))
        source = Source(path, "megatron", config, read_companions(model_dir), load)
        refuse_unknown({key: stored for key, stored in tensors.items() if stored not in adapters.values()}, "", source.pieces, path)
        yield source


def open_slices(path: Path, stack: ExitStack) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint by Megatron's names, open until the stack ends. Raises UserError when they are damaged or not all there."""
    weights = path / "weights"
    for name in ("metadata.json", "common.pt"):
        if not (weights / name).is_file():
            raise UserError(f"the checkpoint {path} cannot be loaded: weights/{name} is missing, so it was never completed")
    try:
        backend = json.loads((weights / "metadata.json").read_text(encoding="utf-8"))["sharded_backend"]
        if backend != BACKEND:
            raise UserError(f"the checkpoint {path} cannot be loaded: its tensors are stored as {backend}, not as {BACKEND}")
        found: dict[str, StoredTensor] = {}
        files, ranks = sorted(weights.glob("slices-*.safetensors")), None
        for file in files:
            opened = stack.enter_context(safe_open(file, framework="pt"))
            layout = json.loads((opened.metadata() or {})[LAYOUT])
            ranks = layout["ranks"]
            for name, part in layout["slices"].items():
                piece = opened.get_slice(name)
                key, whole = part["key"], tuple(part["shape"])
                dtype = _SAFETENSORS_DTYPES.get(piece.get_dtype(), torch.float32)
                stored = found.setdefault(key, StoredTensor(f"the checkpoint {path}", key, whole, dtype))
                stored.chunks.append(Chunk(tuple(part["offset"]), tuple(piece.get_shape()), partial(opened.get_slice, name)))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint {path} cannot be loaded: {error}") from error
    if ranks != len(files):
        raise UserError(f"the checkpoint {path} cannot be loaded: {len(files)} of its {ranks or 'slices-*.safetensors'} files are there")
    return found


_SAFETENSORS_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def write_checkpoint(source: Source, folder: Path, file_bytes: int, progress: Progress) -> None:
    """`weights/` in files of at most file_bytes, one held at a time, and `model/`; no optimizer state, so training starts with a new one.

    Raises UserError for a dtype that is not trained in, OSError or SafetensorError when it cannot be written.
    """
    if source.dtype not in (torch.bfloat16, torch.float32):
        raise UserError(f"the model's dtype is {source.dtype}: only bfloat16 and float32 can be converted without loss")
    weights, model_dir = folder / "weights", folder / "model"
    weights.mkdir(parents=True)
    groups = _group(source.pieces, source.dtype.itemsize, file_bytes)
    layers = source.architecture.layers
    for number, group in enumerate(groups):
        tensors: dict[str, Tensor] = {}
        slices: dict[str, dict[str, Any]] = {}
        for piece in group:
            # A fused parameter is a new tensor; another is the source's own memory, which is only read.
            full = piece.fuse(source.read(piece)).contiguous()
            stacked = piece.layer is not None
            name = str(len(tensors))
            tensors[name] = full[None] if stacked else full
            offset = [piece.layer if stacked else 0] + [0] * (tensors[name].dim() - 1)
            slices[name] = {"key": piece.key, "offset": offset, "shape": [layers, *piece.shape] if stacked else list(piece.shape)}
            progress(len(piece.names))
        Slices(tensors, json.dumps({"slices": slices, "ranks": len(groups)})).write(weights, number)
    common = io.BytesIO()
    torch.save({"content_metadata": {"optimizer": False}}, common)
    (weights / "common.pt").write_bytes(common.getvalue())
    model_dir.mkdir()
    write_companions(source.companions, source.config, source.dtype, model_dir)
    (weights / "metadata.json").write_text(json.dumps(METADATA), encoding="utf-8")


def _group(wanted: list[Piece], item_bytes: int, file_bytes: int) -> list[list[Piece]]:
    groups: list[list[Piece]] = [[]]
    size = 0
    for piece in wanted:
        more = math.prod(piece.shape) * item_bytes
        if groups[-1] and size + more > file_bytes:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += more
    return groups
