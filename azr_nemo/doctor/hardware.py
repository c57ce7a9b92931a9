"""Versions, devices and arithmetic of this machine, and whether the recipe's settings go with them."""

import fcntl
import importlib.util
import os
import platform
import socket
import struct
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
import torch.distributed as dist
from packaging.requirements import Requirement

from azr_nemo.doctor.findings import Finding, error, warning
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


INFINIBAND = Path("/sys/class/infiniband")
PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_", "UCX_")
SIOCGIFADDR = 0x8915  # linux/sockios.h: an interface's IPv4 address


def fabric(environment: Mapping[str, str] = os.environ, devices: Path = INFINIBAND) -> Iterator[Finding]:
    """environment: of this process; devices: where the kernel lists InfiniBand."""
    yield nccl(environment)
    yield infiniband(devices)
    yield gloo(environment, addresses(), several_nodes(environment))


def several_nodes(environment: Mapping[str, str]) -> bool:
    """Whether torchrun spread this job over more than one machine."""
    return int(environment.get("WORLD_SIZE", "1")) > int(environment.get("LOCAL_WORLD_SIZE", environment.get("WORLD_SIZE", "1")))


def nccl(environment: Mapping[str, str]) -> Finding:
    variables = " ".join(f"{name}={value}" for name, value in sorted(environment.items()) if name.startswith(PREFIXES))
    has = torch.cuda.is_available() and dist.is_nccl_available()
    found = ".".join(map(str, torch.cuda.nccl.version())) if has else "none: this torch runs on the CPU, over gloo"
    return Finding("nccl", f"{found}; {variables or 'no NCCL_*, GLOO_* or UCX_* variable is set'}")


def infiniband(folder: Path) -> Finding:
    """The devices with the state and rate of their ports. One whose port is down is a warning: NCCL would go on over slower ones."""
    ports = {}
    for port in sorted(folder.glob("*/ports/*")):
        state, rate = (
            (port / name).read_text(encoding="utf-8").strip() if (port / name).is_file() else "unknown" for name in ("state", "rate")
        )
        ports[f"{port.parts[-3]}:{port.name}"] = f"{state}, {rate}"
    if not ports:
        return Finding("infiniband", "no device")
    listed = "; ".join(f"{name} {what}" for name, what in ports.items())
    down = [name for name, what in ports.items() if "ACTIVE" not in what]
    if down:
        return warning("infiniband", listed, f"{', '.join(down)} is not active: have the link checked, or leave it out with NCCL_IB_HCA")
    return Finding("infiniband", listed)


def addresses() -> dict[str, str]:
    """The IPv4 address of each network interface that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no IPv4 address
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def gloo(environment: Mapping[str, str], interfaces: Mapping[str, str], several: bool) -> Finding:
    """The interface that gloo takes: the one named, or the one that this machine's name resolves to."""
    listed = ", ".join(f"{name} {address}" for name, address in interfaces.items()) or "none with an IPv4 address"
    if named := environment.get("GLOO_SOCKET_IFNAME"):
        missing = [name for name in named.split(",") if name not in interfaces]
        if missing:
            return error(
                "network", f"GLOO_SOCKET_IFNAME={named}, but there is no {missing[0]} (there are {listed})", "set it to one of them"
            )
        return Finding("network", f"gloo takes {named} (GLOO_SOCKET_IFNAME); {listed}")
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = ""
    chosen = next((interface for interface, own in interfaces.items() if own == address), None)
    if address and (chosen or address.startswith("127.")) and not (several and address.startswith("127.")):
        return Finding("network", f"gloo takes {chosen or 'the loopback'} ({address}); {listed}")
    why = f"resolves to {address}" if address else "does not resolve"
    mend = "set GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME) to the interface that the nodes share"
    return (error if several else warning)("network", f"this machine's name {name} {why}, which no other node reaches; {listed}", mend)
