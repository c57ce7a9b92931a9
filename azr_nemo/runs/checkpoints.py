"""A run's checkpoints: each one directory, written aside and renamed; `latest` is moved last. What is there is whole, or is not read.

checkpoints/step_000010/{weights/, model/, buffer.sqlite, config.yaml, state.json}
checkpoints/latest                                                    (a file with the directory's name)
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import HASHES, RECORD, SIZES, Written, compare
from azr_nemo.selfplay.storage import read_image

FORMAT = 1
SEEN_S = 30.0  # within which a file that another node has written and synced is seen here


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint and the number of steps that were done when it was written."""

    path: Path
    step: int


class Checkpoints:
    """The checkpoints of one run. keep: how many are left; older ones are deleted once a newer one is complete. keep_every: those of steps
    divisible by it are kept for good, but for step 0's; 0 for none."""

    def __init__(self, run_dir: Path, keep: int, keep_every: int = 0):
        self.folder, self.keep, self.keep_every = run_dir / "checkpoints", keep, keep_every

    def begin(self, step: int) -> Path:
        """An empty directory, for what is written to be completed. Raises UserError when there is no place for it."""
        aside = self._aside(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
        except OSError as error:
            raise self._failed(step, error) from None
        return aside

    def complete(self, step: int, write: Callable[[Path], dict[str, Written]]) -> Checkpoint:
        """Has `write` fill the directory that `begin` made, then makes it the latest checkpoint.

        write returns what it and other nodes have written there; a file that it does not tell of is read again for its hash. Raises UserError
        when the disk is full or read-only; the checkpoints before stay as they are."""
        target, aside = self.folder / f"step_{step:06d}", self._aside(step)
        try:
            told = write(aside)
            _await_files(aside, told)
            paths = {str(path.relative_to(aside)): path for path in sorted(aside.rglob("*")) if path.is_file()}
            files = {name: told.get(name) or Written.read(path) for name, path in paths.items()}
            sizes, hashes = ({name: file[place] for name, file in files.items()} for place in (0, 1))
            _write_durably(aside / RECORD, json.dumps({"format": FORMAT, "step": step, SIZES: sizes, HASHES: hashes}, indent=1))
            for path in aside.rglob("*"):
                _sync(path)
            _sync(aside)
            if target.exists():
                shutil.rmtree(target)
            os.rename(aside, target)
            _sync(self.folder)
            _write_durably(self.folder / "latest", target.name)
        except (OSError, UserError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise self._failed(step, error) from None
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self._prune(step)
        return Checkpoint(target, step)

    def growth(self) -> tuple[int, int]:
        """Bytes that are written of the checkpoint in the making, and those of the newest whole one, which it will come to; 0 without one."""
        newest = self._directories()[-1:]
        return _bytes_in(self.folder.glob(".writing_*")), _bytes_in(newest)

    def find(self, resume: str, note: Callable[[str], None] = lambda sentence: None, hashed_below: int = 0) -> Checkpoint | None:
        """The checkpoint that `resume` (auto | never | a path) asks for, or None to start afresh. Hashes of files are compared, which reads
        them, in checkpoints of fewer steps than hashed_below: one that has all of a run's steps is not gone on from.

        auto: the latest one, or, when it is damaged, the newest whole one before it, with a note on what is wrong. Raises UserError when all
        are damaged, when the one that is asked for by its path is, and when `never` meets a run that has checkpoints, which would be lost.
        """
        directories = self._directories()
        if resume == "never":
            if directories:
                raise UserError(f"resume=never, but {self.folder.parent} already holds a run: choose another run_dir, or resume=auto")
            return None
        if resume != "auto":
            return read(Path(resume), hashed_below)
        if not directories:
            return None
        name = self._latest()
        # Later ones than the latest are of a run that was taken back to an earlier step.
        damages: list[str] = []
        for path in reversed([path for path in directories if path.name <= name] or directories):
            try:
                found = read(path, hashed_below)
            except UserError as error:
                damages.append(str(error))
                continue
            for damage in damages:
                note(f"{damage}; the run goes on from {found.path}, the checkpoint before it")
            return found
        raise UserError(
            f"{damages[0]}; no checkpoint before it is whole either: bring one of them back and give resume=PATH, or start anew in another run_dir"
        )

    def latest(self) -> Path | None:
        """The one that was completed last, unread."""
        path = self.folder / self._latest()
        return path if path in self._directories() else None

    def _latest(self) -> str:
        latest = self.folder / "latest"
        return latest.read_text(errors="replace", encoding="utf-8").strip() if latest.is_file() else ""

    def before(self, checkpoint: Checkpoint) -> Path | None:
        """The newest one that is older."""
        return next((path for path in reversed(self._directories()) if path.name < checkpoint.path.name), None)

    def clear_unfinished(self) -> None:
        """Frees what saves that were killed had written so far. For the one process that writes here, before it begins."""
        for path in self.folder.glob(".writing_*"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self, step: int) -> None:
        """Deletes old ones; those later than the newest stay, and are replaced as the run comes to them again."""
        older = [path for path in self._directories() if path.name <= f"step_{step:06d}"]
        for path in older[: -self.keep]:
            number = int(path.name.removeprefix("step_"))
            if not (self.keep_every and number and number % self.keep_every == 0):
                shutil.rmtree(path, ignore_errors=True)

    def _aside(self, step: int) -> Path:
        return self.folder / f".writing_{step:06d}"

    def _failed(self, step: int, error: OSError | UserError) -> UserError:
        return UserError(f"the checkpoint of step {step} could not be written to {self.folder}: {_reason(error)}")

    def _directories(self) -> list[Path]:
        named = self.folder.glob("step_*") if self.folder.is_dir() else []
        return sorted(path for path in named if path.name.removeprefix("step_").isdecimal())


def read(path: Path, hashed_below: int = 0) -> Checkpoint:
    """Checks that a checkpoint is whole: every file is there and has the size that it was written with, and the buffer is sound; of one with
    fewer steps than hashed_below, that every file is what was written. Raises UserError otherwise."""
    try:
        state = json.loads((path / RECORD).read_text(encoding="utf-8"))
        step, sizes, hashes = int(state["step"]), dict(state[SIZES]), dict(state.get(HASHES, {}))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a whole checkpoint: its state.json is missing or damaged") from None
    for name, size in sizes.items():
        found = _size(path / name)
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise UserError(f"the checkpoint {path} is damaged: {name} {what}")
    if step < hashed_below:
        compare(path, hashes)
    if "buffer.sqlite" in sizes:
        try:
            read_image(path / "buffer.sqlite")
        except UserError:
            raise UserError(f"the checkpoint {path} is damaged: its buffer.sqlite is no sound database") from None
    return Checkpoint(path, step)


def _await_files(folder: Path, files: dict[str, Written]) -> None:
    """Until the files that other nodes have written are here, as a shared file system may take a moment to show them."""
    deadline = time.monotonic() + SEEN_S
    for name, (size, _) in files.items():
        while (found := _size(folder / name)) != size:
            if time.monotonic() > deadline:
                what = "does not appear here" if found is None else f"has {found} bytes here instead of {size}"
                raise UserError(f"{name}, which its rank has written, {what}: run_dir must be on a file system that all nodes share")
            time.sleep(0.1)


def _bytes_in(folders: Iterable[Path]) -> int:
    total = 0
    for folder in folders:
        # os.walk passes over a folder that is renamed meanwhile, as the one in the making is at last.
        for parent, _, names in os.walk(folder):
            for name in names:
                with suppress(FileNotFoundError):
                    total += (Path(parent) / name).stat().st_size
    return total


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _write_durably(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(text, encoding="utf-8")
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
