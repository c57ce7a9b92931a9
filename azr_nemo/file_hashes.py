"""The record of a checkpoint's files: sizes and hashes of what was written, made from the memory it was written from, compared before it is read.

state.json    {"step": 10, "files": {"weights/common.pt": 1234, ...}, "sha256": {"weights/common.pt": "9f86...", ...}}

SHA-256 is in the standard library and in most processors (1.4 GB/s a core where this was written; crc32 1.9, blake2b 0.5); hashlib lets other
threads run meanwhile. Checkpoints of earlier versions have no hashes and are compared by their sizes alone.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from azr_nemo.errors import UserError

RECORD, SIZES, HASHES = "state.json", "files", "sha256"
BLOCK = 1 << 20
THREADS = 8  # files that are read at a time


class Written(NamedTuple):
    """A file as it was written: bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes | memoryview | Iterable[bytes | memoryview]) -> Self:
        """Of the content in memory, whole or in parts."""
        digest, size = hashlib.sha256(), 0
        for part in [content] if isinstance(content, bytes | memoryview) else content:
            digest.update(part)
            size += memoryview(part).nbytes
        return cls(size, digest.hexdigest())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of a file that somebody else has written."""
        with path.open("rb") as file:
            return cls.of(iter(lambda: file.read(BLOCK), b""))


def write_file(path: Path, content: bytes) -> Written:
    """Writes it. Raises OSError when it cannot."""
    path.write_bytes(content)
    return Written.of(content)


def compare(checkpoint: Path, hashes: Mapping[str, str]) -> None:
    """Reads the files that have a hash. Raises UserError for one that is missing, cannot be read or is not what was written."""

    def wrong(item: tuple[str, str]) -> str:
        name, expected = item
        try:
            return "" if Written.read(checkpoint / name).sha256 == expected else f"{name} is not what was written (its sha256 differs)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"

    with ThreadPoolExecutor(THREADS) as pool:
        for sentence in pool.map(wrong, hashes.items()):
            if sentence:
                raise UserError(f"the checkpoint {checkpoint} is damaged: {sentence}")


def compare_recorded(checkpoint: Path, *folders: str) -> None:
    """The same for the files in these folders of a checkpoint, as far as its record has them. Raises UserError for a damaged record, too."""
    if not (checkpoint / RECORD).is_file():
        return  # what `azr-nemo convert` makes has none
    try:
        hashes = dict(json.loads((checkpoint / RECORD).read_text()).get(HASHES, {}))
    except (OSError, ValueError, AttributeError, TypeError):
        raise UserError(f"the checkpoint {checkpoint} is damaged: its {RECORD} cannot be read") from None
    compare(checkpoint, {name: hash for name, hash in hashes.items() if name.startswith(tuple(f"{folder}/" for folder in folders))})
