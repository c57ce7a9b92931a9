"""Where a run writes: whether it can, durably, whether a checkpoint fits, and whether the file system's clock is ours."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from azr_nemo.doctor.findings import Finding, error, warning
from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.models import cache_dir
from azr_nemo.models.shape import model_shape
from azr_nemo.planning.memory import checkpoint_bytes
from azr_nemo.planning.parameters import total_parameters
from azr_nemo.planning.sizing import width
from azr_nemo.settings.schema import RunConfig

MOST_SKEW_S = 2.0  # between a file system's times and this machine's


def disk(config: RunConfig, about_run: bool) -> Iterator[Finding]:
    """The cache and the working directory; with a run in mind, its directory and that of its checkpoints."""
    yield cache(cache_dir())
    if not about_run:
        yield Finding("working directory", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB free")
        return
    run_dir = Path(config.run_dir)
    yield writing("run_dir", run_dir)
    yield room(config, run_dir / "checkpoints")


def cache(folder: Path) -> Finding:
    existing = nearest_existing(folder)
    free = f"{folder}, {shutil.disk_usage(existing).free / 1e9:.0f} GB free"
    if os.access(existing, os.W_OK):
        return Finding("cache", free)
    return warning(
        "cache", f"{free}, not writable", "set AZR_NEMO_CACHE to a directory that is, where models shall be made or warm-started"
    )


def writing(what: str, folder: Path) -> Finding:
    """Writes, syncs and renames a file where `folder` is or will be, as a checkpoint does, and compares its time with ours."""
    existing = nearest_existing(folder)
    where = f"{folder}" if existing == folder else f"{folder} (to be made in {existing})"
    try:
        took, skew = trial(existing)
    except OSError as problem:
        return error(
            what, f"{where} cannot be written: {problem.strerror}", "choose another with run_dir=DIR, or have its permissions changed"
        )
    found = f"{where}: written, synced and renamed in {1000 * took:.0f} ms"
    if abs(skew) > MOST_SKEW_S:
        return warning(
            what, f"{found}; its files are dated {abs(skew):.1f} s {'after' if skew > 0 else 'before'} this machine's time",
            "have the clocks of this machine and of the file server synchronised (chrony, NTP)",
        )  # fmt: skip
    return Finding(what, found)


def trial(folder: Path) -> tuple[float, float]:
    """(seconds of a durable write and rename in an existing folder, the file's time minus ours). Leaves nothing. Raises OSError."""
    if not folder.is_dir():
        raise NotADirectoryError(20, "it is a file")
    aside = Path(tempfile.mkdtemp(prefix=".azr-nemo-doctor-", dir=folder))
    try:
        began = time.monotonic()
        before = time.time()
        handle = os.open(aside / "written", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(handle, bytes(1 << 20))
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(aside / "written", aside / "renamed")
        sync(aside)
        took, after = time.monotonic() - began, time.time()
        dated = (aside / "renamed").stat().st_mtime
        return took, dated - min(max(dated, before), after)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def room(config: RunConfig, folder: Path) -> Finding:
    """Free space against the checkpoints that the recipe keeps, and one that is written aside."""
    existing = nearest_existing(folder)
    free = shutil.disk_usage(existing).free
    try:
        one = checkpoint_bytes(total_parameters(read_architecture(model_shape(config.model))), width(config))
    except UserError as problem:
        return warning(
            "checkpoints", f"{free / 1e9:.0f} GB free; their size is unknown: {problem}", "give model.path or model.architecture"
        )
    kept = config.checkpoint.keep + 1
    kept += config.selfplay.steps // config.checkpoint.keep_every if config.checkpoint.keep_every else 0
    found = f"{free / 1e9:.1f} GB free on {existing}; one checkpoint takes {one / 1e9:.2f} GB, all that are kept {kept * one / 1e9:.1f} GB"
    mend = "free some space, choose another run_dir, or lower checkpoint.keep"
    if free < one:
        return error("checkpoints", found, mend)
    if free < kept * one:
        return warning("checkpoints", found, f"{mend}; checkpoint.keep_every keeps for good")
    return Finding("checkpoints", found)


def nearest_existing(path: Path) -> Path:
    """The path itself, or the closest of its parents that is there."""
    path = path.expanduser().absolute()
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())
