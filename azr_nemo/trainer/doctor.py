"""What this machine offers to a run."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from azr_nemo.config import ExecutorConfig
from azr_nemo.megatron.platform import choose_platform, multiplies_bfloat16
from azr_nemo.models import cache_dir
from azr_nemo.sandbox.executor import ExecutorUnavailable
from azr_nemo.sandbox.local import jail
from azr_nemo.trainer.executors import make_executor

PACKAGES = ("azr-nemo", "torch", "megatron-core", "transformers", "transformer-engine", "tensorrt-llm")


def report(config: ExecutorConfig) -> Iterator[tuple[str, str]]:
    """(what, found) rows, in the order of a reader's interest. config: of the executor that is started and described."""
    import torch

    yield "python", f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores"
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    cuda = torch.cuda.is_available()
    yield "devices", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if cuda else "CPU only"
    fast = multiplies_bfloat16(choose_platform("auto"))
    yield "arithmetic", "bfloat16" if fast else "float32 (this CPU has no instructions for bfloat16 products; model.dtype=auto knows)"
    for probe in jail.probe():
        yield f"jail {jail.LETTERS[probe.rung]}: {probe.rung}", probe.reason
    try:
        with make_executor(config) as executor:
            yield "executor", executor.describe()
    except ExecutorUnavailable as error:
        yield "executor", f"none: {error}"
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = "" if os.access(existing, os.W_OK) else ", not writable: set AZR_NEMO_CACHE"
    yield "cache", f"{folder}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free{writable}"
    yield "working directory", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free"
