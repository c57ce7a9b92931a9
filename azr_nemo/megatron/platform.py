"""Where the trainer runs: device, communication backend, and the one place that lets Megatron's CUDA literals mean the CPU.

Megatron-core is written for CUDA: it says `device="cuda"`, `.cuda()` and `torch.cuda.current_device()` in its schedules, its optimizer
and its rotary embedding. On a CPU these are redirected inside `Platform.scope()` and nowhere else; outside it torch is plain torch.
"""

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from azr_nemo.errors import UserError


class CudaMeansCpu(TorchFunctionMode):
    """Redirects `device="cuda"` and `.cuda()` to the CPU, and reports tensor type names as CUDA's, which Megatron's optimizer compares."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if kwargs is None:
            kwargs = {}
        elif kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs = {**kwargs, "device": "cpu"}
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(args[0]).replace("torch.", "torch.cuda.")
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Platform:
    """device: of this rank. backend: torch.distributed's. transformer_engine: whether TransformerEngine can be had here."""

    device: torch.device
    backend: str
    transformer_engine: bool

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Inside, Megatron's CUDA literals mean this platform's device. Reentrant; does nothing on a GPU."""
        if self.device.type == "cuda" or isinstance(torch.cuda.current_device, _CpuDevice):
            yield
            return
        cuda: Any = torch.cuda
        kept = {name: getattr(cuda, name) for name in ("current_device", "synchronize", "current_stream")}
        cuda.current_device = _CpuDevice()
        cuda.synchronize = lambda device=None: None
        cuda.current_stream = lambda device=None: torch.cpu.current_stream()  # megatron-core 0.19 asks for it before it reduces gradients
        try:
            with CudaMeansCpu():
                yield
        finally:
            for name, function in kept.items():
                setattr(cuda, name, function)


class _CpuDevice:
    def __call__(self) -> torch.device:
        return torch.device("cpu")


def choose_platform(name: str) -> Platform:
    """The platform for the setting `platform` (auto, cpu, cuda). Raises UserError when CUDA is asked for and there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"platform={name} is not known: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "platform=cuda, but torch sees no CUDA device: use platform=cpu, or install a CUDA build of torch and check the driver"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return Platform(torch.device("cpu"), "gloo", transformer_engine=False)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    # Commands and gathered samples travel as CPU tensors, so a GPU job needs both backends.
    return Platform(device, "cpu:gloo,cuda:nccl", transformer_engine=importlib.util.find_spec("transformer_engine") is not None)


DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# Without one of these a CPU multiplies bfloat16 in plain loops: about 18 times slower than float32 (measured on Zen 3).
FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
CPU_INFO = Path("/proc/cpuinfo")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container's own group: microseconds of CPU time, of how many


def multiplies_bfloat16(platform: Platform) -> bool:
    """Whether the device has instructions for bfloat16 products: every GPU that Megatron supports; a CPU says so in /proc/cpuinfo."""
    if platform.device.type == "cuda":
        return True
    try:
        return not FAST_BFLOAT16.isdisjoint(CPU_INFO.read_text(encoding="utf-8").split())
    except OSError:
        return False


def choose_dtype(name: str, platform: Platform) -> torch.dtype:
    """The dtype for the setting `model.dtype` (auto, bfloat16, float32)."""
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16(platform) else torch.float32
    return DTYPES[name]


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_KEPT = 32 << 20  # bytes; the largest threshold that every glibc of 64 bits takes


def keep_freed_memory() -> None:
    """Has glibc keep the memory that tensors free instead of returning it to the system: a CPU's training step allocates the same megabytes
    thousands of times, and fresh pages must be mapped and cleared (measured: a fifth of a step). For tensors above 32 MiB the heap does not
    grow, they are mapped by themselves where it has no room: their sizes vary with the rows, and pieces that fit nothing would pile up. Does nothing with
    another C library."""
    _libc("mallopt", M_MMAP_THRESHOLD, LARGEST_KEPT)
    _libc("mallopt", M_TRIM_THRESHOLD, -1)


KERNELS_KEPT = "128"  # of each cache: those of several batches of rows, whose layers share theirs
KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # of oneDNN, and of ideep, through which torch calls it


def bound_kernel_caches() -> None:
    """Has torch keep fewer of the kernels that it compiles on a CPU: one for every shape of a bfloat16 product, and rows have as many lengths as there
    are. With its own bounds, 1,024 each, a run grows step by step (measured: 1.7 MB for each new length of a linear layer, 3.3 of attention). What is
    asked for again, by the other layers of a batch of rows, is among the last that were. To be called before torch multiplies anything; a variable that
    is set stays as it is."""
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, KERNELS_KEPT)


def return_freed_memory() -> None:
    """Gives back what is free now, wherever it lies: what one phase of a step freed is of little use to the next, whose tensors have other sizes, and
    between what lives on it would be kept for good. Does nothing with another C library."""
    _libc("malloc_trim", 0)


def _libc(function: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)


def set_threads(threads: int) -> int:
    """Sets torch's CPU threads and returns their number; 0 shares the cores that this process may use among the machine's ranks. For a rank
    alone OMP_NUM_THREADS is a bound of that; to several torchrun gives one of its own."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    count = threads or max(1, usable_cores() // ranks)
    if not threads and ranks == 1 and (bound := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        count = max(1, min(count, int(bound)))
    torch.set_num_threads(count)
    return count


def usable_cores() -> int:
    """Those that the scheduler gives this process, or fewer where a container's quota of CPU time is less: threads beyond it only wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such group, or "max"
        return cores
