import ctypes
import os
import platform as python_platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import process_trees
import pytest
import torch

from azr_nemo.errors import UserError
from azr_nemo.megatron import platform
from azr_nemo.megatron.platform import choose_platform, set_threads, usable_cores


def test_cuda_literals_mean_the_cpu_only_inside_the_scope() -> None:
    before = torch.cuda.current_device
    with choose_platform("cpu").scope(), choose_platform("cpu").scope():
        assert torch.zeros(2, device="cuda").device.type == "cpu"
        assert torch.ones(1).cuda().device.type == "cpu"
        assert torch.ones(1).type() == "torch.cuda.FloatTensor"
        assert torch.ones(1).type(torch.float64).dtype == torch.float64
        assert str(torch.cuda.current_device()) == "cpu"
    assert torch.cuda.current_device is before
    assert torch.ones(1).type() == "torch.FloatTensor"


def test_the_scope_ends_when_its_body_fails() -> None:
    before = torch.cuda.current_device
    with pytest.raises(ZeroDivisionError), choose_platform("cpu").scope():
        raise ZeroDivisionError
    assert torch.cuda.current_device is before


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_platform("auto").device.type == "cpu"
    with pytest.raises(UserError, match="platform=cuda, but torch sees no CUDA device: use platform=cpu"):
        choose_platform("cuda")
    with pytest.raises(UserError, match="platform=tpu is not known"):
        choose_platform("tpu")


def platform_name() -> str:
    return python_platform.libc_ver()[0]


def resident() -> float:
    """MiB of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_shared_by_the_machines_ranks(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    assert set_threads(3) == torch.get_num_threads() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert set_threads(0) == 1


def test_omp_num_threads_bounds_those_of_a_rank_alone(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    monkeypatch.setattr(platform, "usable_cores", lambda: 8)
    for bound, expected in (("", 8), ("3", 3), ("99", 8), ("4,2", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", bound)
        assert set_threads(0) == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it for several
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert set_threads(0) == 4


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("9900000 100000", 8)])
def test_a_containers_quota_counts_as_cores(text: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    monkeypatch.setattr(platform, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(platform.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert usable_cores() == cores
    monkeypatch.setattr(platform, "CPU_QUOTA", tmp_path / "missing")
    assert usable_cores() == 8


@pytest.mark.skipif(platform_name() != "glibc", reason="another C library than glibc")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    platform.keep_freed_memory()
    platform.return_freed_memory()
    before = resident()
    tensors = [torch.ones(2**20) for _ in range(100)]  # 4 MiB each
    del tensors[::2]  # between what lives on
    held = resident() - before
    platform.return_freed_memory()
    given = before + held - resident()
    assert held > 380
    assert 180 < given < 220
    assert all(float(tensor.sum()) == 2**20 for tensor in tensors)


@pytest.mark.skipif(platform_name() != "glibc", reason="another C library than glibc")
def test_large_tensors_do_not_make_the_heap_grow() -> None:
    platform.keep_freed_memory()
    before = heap()
    for mebibytes in range(1024, 4096, 512):  # more than the heap has room for, and none fits the place of the one before
        torch.empty(mebibytes * 2**18)  # nothing is written, so nothing becomes resident
    assert heap() == before


LENGTHS = """
import ctypes, sys, torch
from azr_nemo.megatron import platform

class Allocated(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

def allocated():
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = Allocated
    found = libc.mallinfo2()
    return found.uordblks + found.hblkhd

if sys.argv[1] == "bounded":
    platform.bound_kernel_caches()
torch.set_num_threads(1)
weight = torch.randn(256, 256, dtype=torch.bfloat16, requires_grad=True)
for length in range(100, 300):
    if length == 150:
        before = allocated()
    rows = torch.randn(length, 256, dtype=torch.bfloat16, requires_grad=True)
    (rows @ weight.t()).sum().backward()
    weight.grad = None
print(allocated() - before)
"""


def new_lengths(which: str, **environment: str) -> int:
    """Bytes that a process has allocated for 150 lengths of rows that it had not met before."""
    kept = {name: value for name, value in os.environ.items() if name not in platform.KERNEL_CACHES}
    done = process_trees.run([sys.executable, "-c", LENGTHS, which], timeout=240, env=kept | environment, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    platform_name() != "glibc" or not hasattr(ctypes.CDLL("libc.so.6"), "mallinfo2"), reason="glibc before 2.33, or another C library"
)
@pytest.mark.skipif(not platform.multiplies_bfloat16(choose_platform("cpu")), reason="a CPU without instructions for bfloat16")
def test_rows_of_ever_new_lengths_do_not_make_a_run_grow() -> None:
    bounded = new_lengths("bounded")
    assert bounded < 4e6
    assert new_lengths("torch") > 4 * max(bounded, 1e6), "what torch does by itself"
    assert new_lengths("bounded", **dict.fromkeys(platform.KERNEL_CACHES, "1024")) > 4 * max(bounded, 1e6), "a variable that is set stays"


def heap() -> int:
    """Bytes of addresses that the C library's heap has."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    ends = [line.split()[0].split("-") for line in lines if line.endswith("[heap]")]
    return sum(int(last, 16) - int(first, 16) for first, last in ends)
