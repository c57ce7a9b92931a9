"""A run's directory: made once, locked by the one process that writes to it, told what runs in it and how the run ended.

versions.json    the versions of Python and of the packages that decide what a run does, at its latest start
outcome    one line, written last of all: `done STEP`, `worse STEP` or `stopped STEP SIGNAL`. Without it the run failed or was killed.
"""

import fcntl
import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

from azr_nemo.errors import UserError

PACKAGES = ("azr-nemo", "torch", "megatron-core", "transformers", "nemo-aligner", "nemo-toolkit", "tensorrt-llm", "numpy")


def versions() -> dict[str, str]:
    """Of Python and of those of PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Outcome:
    """How a run ended. kind: done, all steps; worse, `eval.stop_if_worse` ended it; stopped, by a signal, to go on with the same command."""

    kind: str
    step: int
    signal: str = ""

    @property
    def exit_code(self) -> int:
        """75 (EX_TEMPFAIL of sysexits.h) asks a batch script for the same command again. Launchers such as torchrun turn it into 1."""
        return os.EX_TEMPFAIL if self.kind == "stopped" else os.EX_OK

    def __str__(self) -> str:
        return f"{self.kind} {self.step} {self.signal}".rstrip()


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
        (path / "outcome").unlink(missing_ok=True)
        self._write("versions.json", json.dumps(versions(), indent=1))

    def conclude(self, outcome: Outcome) -> None:
        """Writes how the run ended."""
        self._write("outcome", str(outcome))

    def _write(self, name: str, text: str) -> None:
        """A full disk must not turn a run that is saved into a failed one, so it is left without the file then."""
        aside = self.path / f".{name}.writing"
        try:
            aside.write_text(f"{text}\n", encoding="utf-8")
            os.replace(aside, self.path / name)
        except OSError:
            aside.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._lock)
