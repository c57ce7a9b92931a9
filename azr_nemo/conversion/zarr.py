"""zarr version 2 as megatron-core 0.10 writes and reads it: a folder a tensor, JSON beside files of raw elements, nothing compressed.

https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html; bfloat16 is tensorstore's name for a type that zarr itself lacks.
"""

import itertools
import json
import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from azr_nemo.conversion.archive import Archive, Writer
from azr_nemo.conversion.stored import Chunk, StoredTensor
from azr_nemo.errors import UserError

DTYPES = {"<f4": torch.float32, "<f2": torch.float16, "bfloat16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNK_BYTES = 2**28  # of what we write: a rank that wants a part of a tensor reads whole chunks


def open_zarr(archive: Archive, folder: str) -> dict[str, StoredTensor]:
    """The model's tensors in the folder, by key; the optimizer's are left alone. Raises UserError for a damaged or compressed one."""
    found = {}
    for name in archive.files:
        if name.startswith(f"{folder}/") and name.endswith("/.zarray"):
            key = name[len(folder) + 1 : -len("/.zarray")]
            if not key.startswith("optimizer."):
                found[key] = _open_array(archive, name.removesuffix("/.zarray"), key)
    return found


def _open_array(archive: Archive, folder: str, key: str) -> StoredTensor:
    where = f"{archive.path}: its tensor {key}"
    try:
        header = json.loads(archive.read(f"{folder}/.zarray"))
        shape, grid = tuple(map(int, header["shape"])), tuple(map(int, header["chunks"]))
        dtype, separator = DTYPES.get(header["dtype"]), header.get("dimension_separator", ".")
        plain = header["zarr_format"] == 2 and header["order"] == "C" and not header["filters"] and len(shape) == len(grid)
        compressor = header["compressor"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} has a damaged .zarray ({type(error).__name__}: {error})") from error
    if compressor or not plain or dtype is None or min((*shape, *grid), default=1) < 1:
        raise UserError(
            f"{where} is stored as {header['dtype']}, compressor {compressor}, order {header['order']}: "
            f"expected {', '.join(DTYPES)}, uncompressed, order C, as Megatron writes them"
        )
    stored = StoredTensor(str(archive.path), key, shape, dtype)
    for index in itertools.product(*(range(-(-size // step)) for size, step in zip(shape, grid, strict=True))):
        file = f"{folder}/{separator.join(map(str, index)) or '0'}"
        offset = tuple(i * step for i, step in zip(index, grid, strict=True))
        size = tuple(min(step, whole - start) for step, whole, start in zip(grid, shape, offset, strict=True))
        stored.chunks.append(Chunk(offset, size, partial(_load, archive, file, grid, dtype)))
    return stored


def _load(archive: Archive, file: str, grid: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    content = archive.array(file)
    if content.nbytes != math.prod(grid) * dtype.itemsize:
        raise UserError(f"{archive.path} is damaged: {file} has {content.nbytes} bytes instead of {math.prod(grid) * dtype.itemsize}")
    return torch.from_numpy(content).view(dtype).view(grid)


class ZarrArray:
    """A tensor that is written in parts along its first axis, `rows` at a time."""

    def __init__(self, writer: Writer, folder: str, shape: tuple[int, ...], dtype: torch.dtype, rows: int) -> None:
        self._writer, self._folder, self._rest = writer, folder, len(shape) - 1
        header = {
            "chunks": [rows, *shape[1:]],
            "compressor": None,
            "dtype": NAMES[dtype],
            "fill_value": None,
            "filters": None,
            "order": "C",
            "shape": list(shape),
            "zarr_format": 2,
        }
        writer.write(f"{folder}/.zarray", json.dumps(header, indent=4).encode())

    def write(self, index: int, part: Tensor) -> None:
        """Elements [index * rows, (index + 1) * rows); the last part must be whole too."""
        name = ".".join(map(str, [index] + [0] * self._rest))
        content: np.ndarray = part.detach().contiguous().flatten().view(torch.uint8).numpy()
        self._writer.write(f"{self._folder}/{name}", content.data)


def rows_of_a_chunk(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """How many rows of a tensor go into one chunk: a divisor of all of them, so that no chunk is padded."""
    parts = math.ceil(math.prod(shape) * dtype.itemsize / CHUNK_BYTES)
    while shape[0] % parts:
        parts += 1
    return shape[0] // parts
