"""A run's checkpoints: each one directory, written aside and renamed; `latest` is moved last. What is there is whole, or is not read.

checkpoints/step_000010/{weights/, model/, buffer.sqlite, config.yaml, state.json}
checkpoints/latest                                                    (a file with the directory's name)
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from azr_nemo.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint and the number of steps that were done when it was written."""

    path: Path
    step: int


class Checkpoints:
    """The checkpoints of one run. keep: how many are left; older ones are deleted once a newer one is complete."""

    def __init__(self, run_dir: Path, keep: int):
        self.folder, self.keep = run_dir / "checkpoints", keep

    def save(self, step: int, write: Callable[[Path], None]) -> Checkpoint:
        """Has `write` fill an empty directory, then makes it the latest checkpoint. Raises UserError when the disk is full or read-only;
        the checkpoints before stay as they are."""
        target, aside = self.folder / f"step_{step:06d}", self.folder / f".writing_{step:06d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            write(aside)
            sizes = {str(path.relative_to(aside)): path.stat().st_size for path in sorted(aside.rglob("*")) if path.is_file()}
            _write_durably(aside / "state.json", json.dumps({"format": FORMAT, "step": step, "files": sizes}, indent=1))
            for path in aside.rglob("*"):
                _sync(path)
            if target.exists():
                shutil.rmtree(target)
            os.rename(aside, target)
            _sync(self.folder)
            _write_durably(self.folder / "latest", target.name)
        except (OSError, UserError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise UserError(f"the checkpoint of step {step} could not be written to {self.folder}: {_reason(error)}") from None
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        for old in self._directories()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return Checkpoint(target, step)

    def find(self, resume: str) -> Checkpoint | None:
        """The checkpoint that `resume` (auto | never | a path) asks for, or None to start afresh. Raises UserError when it is damaged, and
        when `never` meets a run that has checkpoints, which would be lost."""
        directories = self._directories()
        if resume == "never":
            if directories:
                raise UserError(f"resume=never, but {self.folder.parent} already holds a run: choose another run_dir, or resume=auto")
            return None
        if resume != "auto":
            return read(Path(resume))
        if not directories:
            return None
        latest = self.folder / "latest"
        name = latest.read_text().strip() if latest.is_file() else directories[-1].name
        newest = self.folder / name if (self.folder / name).is_dir() else directories[-1]
        try:
            return read(newest)
        except UserError as error:
            others = [path for path in directories if path < newest]
            way = f"resume={others[-1]}" if others else "another run_dir"
            raise UserError(f"{error}; to go on without it use {way}") from None

    def _directories(self) -> list[Path]:
        return sorted(self.folder.glob("step_*")) if self.folder.is_dir() else []


def read(path: Path) -> Checkpoint:
    """Checks that a checkpoint is whole: every file is there and has the size that it was written with. Raises UserError otherwise."""
    try:
        state = json.loads((path / "state.json").read_text())
        step, sizes = int(state["step"]), dict(state["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a whole checkpoint: its state.json is missing or damaged") from None
    for name, size in sizes.items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise UserError(f"the checkpoint {path} is damaged: {name} {what}")
    return Checkpoint(path, step)


def _write_durably(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(text)
    _sync(aside)
    os.replace(aside, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: OSError | UserError) -> str:
    # What writes the parts wraps the system's error in a sentence of its own, which ends with the system's words.
    if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return "the disk is full; free some space and start the run again, it goes on from the checkpoint before"
    return f"{getattr(error, 'strerror', None) or error}; the checkpoint before is untouched"
