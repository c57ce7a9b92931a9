"""Versions, devices and arithmetic of this machine, and whether the recipe's settings go with them."""

import importlib.util
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement

from azr_nemo.doctor.finding import Finding, error, warning
from azr_nemo.megatron.platform import choose_platform, multiplies_bfloat16
from azr_nemo.settings.schema import RunConfig

PACKAGES = ("azr-nemo", "torch", "megatron-core", "transformers", "transformer-engine", "tensorrt-llm")


def versions() -> Iterator[Finding]:
    """Python, the packages that decide what a run does, and every requirement that is not met."""
    yield Finding("python", f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    for package in PACKAGES:
        yield Finding(package, _installed(package) or "not installed")
    for requirement in map(Requirement, requires("azr-nemo") or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = _installed(requirement.name)
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                yield error(requirement.name, f"{found or 'not installed'}, but {requirement} is needed", f"pip install '{requirement}'")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def devices(config: RunConfig, about_run: bool) -> Iterator[Finding]:
    """GPUs and arithmetic. about_run: the settings are those of a run that shall be started here."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"{torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 1e9:.0f} GB" for i in range(count)]
    wanted = config.cluster.gpus_per_node
    if about_run and count < max(wanted, config.platform == "cuda"):
        yield error(
            "devices", f"{count} GPUs, but the recipe wants {max(1, wanted)} on each node",
            "start it on such a node, check the driver with nvidia-smi, or change cluster.gpus_per_node and platform",
        )  # fmt: skip
    else:
        yield Finding("devices", "; ".join(names) or "CPU only")
    fast = multiplies_bfloat16(choose_platform("auto"))
    if not fast and about_run and config.model.dtype == "bfloat16" and not wanted:
        yield warning("arithmetic", "bfloat16 without instructions for it: about 18 times slower than float32", "set model.dtype=auto")
    else:
        yield Finding(
            "arithmetic", "bfloat16" if fast else "float32 (this CPU has no instructions for bfloat16 products; model.dtype=auto knows)"
        )
    engine_wanted = [name for name in ("distributed_optimizer", "sequence_parallel") if getattr(config.engine, name)]
    if about_run and engine_wanted and importlib.util.find_spec("transformer_engine") is None:
        names_wanted = " and ".join(f"engine.{name}=true" for name in engine_wanted)
        yield error("transformer-engine", f"not installed, but {names_wanted} need it", "install TransformerEngine, or set them to false")
    if about_run and config.rollout.name == "trtllm" and importlib.util.find_spec("tensorrt_llm") is None:
        yield error("tensorrt-llm", "not installed, but rollout=trtllm needs it", "use an image that has it, or set rollout=torch")
