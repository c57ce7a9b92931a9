"""A folder, or the uncompressed tar of one: files are mapped into memory where they lie, and written one after the other."""

import contextlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from azr_nemo.errors import UserError


@dataclass(frozen=True)
class Archive:
    """files: name -> (file, offset, size); names are relative, with slashes."""

    path: Path
    files: dict[str, tuple[Path, int, int]]

    def array(self, name: str) -> np.ndarray:
        """A file's bytes, mapped and private: nothing is read before it is used, and nothing is written back."""
        file, offset, size = self._find(name)
        if size == 0:
            return np.empty(0, np.uint8)
        try:
            return np.memmap(file, np.uint8, "c", offset, (size,))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} is damaged: {name} cannot be read ({error})") from error

    def read(self, name: str) -> bytes:
        """A file's bytes, copied."""
        return self.array(name).tobytes()

    def folder(self, name: str) -> dict[str, str]:
        """The files directly in a folder: their own names -> their names here."""
        return {key[len(name) + 1 :]: key for key in self.files if key.startswith(f"{name}/") and "/" not in key[len(name) + 1 :]}

    def _find(self, name: str) -> tuple[Path, int, int]:
        if name not in self.files:
            raise UserError(f"{self.path} is damaged: it has no {name}")
        return self.files[name]


def open_archive(path: Path) -> Archive:
    """Raises UserError when the file is no tar, is a compressed one, or ends too early."""
    if path.is_dir():
        found = (file for file in sorted(path.rglob("*")) if file.is_file())
        return Archive(path, {file.relative_to(path).as_posix(): (file, 0, file.stat().st_size) for file in found})
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar.getmembers() if member.isreg()]
            files = {Path(member.name).as_posix(): (path, member.offset_data, member.size) for member in members}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read as a .nemo file ({error}): expected an uncompressed tar; unpack a compressed one into a folder and convert that"
        ) from error
    size = path.stat().st_size
    for name, (_, offset, length) in files.items():
        if offset + length > size:
            raise UserError(f"{path} is damaged: it ends inside {name}")
    return Archive(path, files)


class Writer(Protocol):
    """Takes whole files, in any order."""

    def write(self, name: str, content: bytes | memoryview) -> None: ...


class _FolderWriter:
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, name: str, content: bytes | memoryview) -> None:
        file = self._path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class _TarWriter:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def write(self, name: str, content: bytes | memoryview) -> None:
        # NeMo's own members begin with "./". Equal models give equal files: no times, no owners.
        member = tarfile.TarInfo(f"./{name}")
        member.size, member.mode = memoryview(content).nbytes, 0o644
        self._tar.addfile(member, io.BytesIO(content))


@contextlib.contextmanager
def write_archive(path: Path, packed: bool) -> Iterator[Writer]:
    """A new folder, or, packed, a new uncompressed tar. Raises OSError when it cannot be written."""
    if not packed:
        path.mkdir()
        yield _FolderWriter(path)
        return
    with tarfile.open(path, "w:") as tar:
        yield _TarWriter(tar)
