"""A run's directory: made once, locked by the one process that writes to it."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from azr_nemo.errors import UserError


class RunDirectory:
    """Holds `run_dir` for this process. Raises UserError when it cannot be written or another run is at work in it."""

    def __init__(self, path: Path):
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"run_dir={path} cannot be written ({error.strerror}): choose another with run_dir=DIR") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UserError(f"run_dir={path} is in use by another process: wait for it, or choose another with run_dir=DIR") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._lock)
