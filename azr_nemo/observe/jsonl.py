"""JSON lines that survive being killed: rows are appended whole, a torn last line is dropped, later steps can be taken back."""

import json
import math
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.json_lines import value


def encode(row: Mapping[str, Any]) -> str:
    """The row as one line of strict JSON without its newline; nan and infinities, which JSON lacks, become null."""
    return json.dumps(_finite(row), allow_nan=False)


def read_rows(path: Path, key: str = "step", kind: type = int) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file in order; a last line without its newline was torn by a kill and is left out.

    Every row has a `key` of this kind. Raises UserError when the file cannot be opened or when any other line is no such JSON object.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): expected the file that a run writes; check the path") from error
    with file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield _parse(line, path, number, key, kind)


class JsonlLog:
    """One writer's append-only file whose rows all carry an integer `step`. Opening it cuts off a torn last line.

    Every method that writes raises UserError when the file cannot be written (read-only, full disk); what was there before stays whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = self._open()
            os.ftruncate(self._fd, _whole_bytes(self._fd))

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends the rows in one write, so that a killed process leaves at most the last line torn."""
        data = "".join(encode(row) + "\n" for row in rows).encode("ascii")
        with self._writing():
            end = os.fstat(self._fd).st_size
            try:
                left = memoryview(data)
                while left:  # a nearly full disk takes a part and refuses the rest at the next write
                    left = left[os.write(self._fd, left) :]
            except OSError:
                os.ftruncate(self._fd, end)
                raise

    def rewind(self, step: int) -> None:
        """Drops the rows of steps after `step`: a resumed run does them again. Written aside and renamed; untouched if there are none."""
        aside = self.path.with_name(self.path.name + ".tmp")
        dropped = False
        with self._writing(), self.path.open("rb") as old:
            try:
                with aside.open("wb") as new:
                    for number, line in enumerate(old, start=1):
                        if _parse(line, self.path, number)["step"] <= step:
                            new.write(line)
                        else:
                            dropped = True
                    new.flush()
                    os.fsync(new.fileno())
                if dropped:
                    os.replace(aside, self.path)
                    os.close(self._fd)
                    self._fd = self._open()
            finally:
                aside.unlink(missing_ok=True)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self.path} ({error.strerror}): expected a writable run_dir with free space; "
                "make room or set run_dir elsewhere, then give the same command again"
            ) from error


def _whole_bytes(fd: int) -> int:
    """The file's length up to and including its last newline."""
    if os.fstat(fd).st_size == 0:
        return 0
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as text:
        return text.rfind(b"\n") + 1


def _parse(line: bytes, path: Path, number: int, key: str = "step", kind: type = int) -> dict[str, Any]:
    try:
        row = value(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get(key), kind):
        raise UserError(f"line {number} of {path} is damaged: expected a JSON object with {key}; delete that line")
    return row


def _finite(part: Any) -> Any:
    if isinstance(part, float):
        return part if math.isfinite(part) else None
    if isinstance(part, Mapping):
        return {key: _finite(item) for key, item in part.items()}
    if isinstance(part, (list, tuple)):
        return [_finite(item) for item in part]
    return part
