"""A pretended CUDA device for a torch that was built for the CPU: training steps on it have shapes, dtypes, devices and sizes, and no numbers.

Tensors are torch's fake ones. Integers and booleans keep their values in a CPU tensor beside them, so that what depends on data goes on: lengths,
masks, indices. What mixes devices or dtypes raises, as on a GPU. Counted are the bytes that are alive, what the host would have to wait for, and what
collectives would send. It proves no kernel, no order of NCCL's and no speed.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import process_trees

SOURCE = Path(__file__).with_name("guard.cpp")


def load_guard() -> None:
    """Has torch believe in one CUDA device; before the first `import torch`. Builds guard.cpp with the compiler at hand, once for a torch."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch_folder = Path(spec.origin).parent
    version = (torch_folder / "version.py").read_bytes()
    # The library knows where this torch lies: another checkout's is of the same version, and may be gone tomorrow.
    name = hashlib.sha256(SOURCE.read_bytes() + version + str(torch_folder).encode()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"azr-nemo-guard-{os.getuid()}-{name}.so"
    if not built.exists():
        aside = built.with_suffix(f".{os.getpid()}")
        lib = torch_folder / "lib"
        process_trees.run(
            [os.environ.get("CXX", "c++"), "-std=c++20", "-w", "-shared", "-fPIC", f"-I{torch_folder / 'include'}", str(SOURCE), "-o", str(aside),
             f"-L{lib}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{lib}"],
            timeout=300,
            check=True,
        )  # fmt: skip
        aside.rename(built)
    ctypes.CDLL(str(built), mode=ctypes.RTLD_GLOBAL)


load_guard()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.distributed._meta_registrations as registrations  # noqa: E402
import torch.distributed._tools.fake_collectives  # noqa: E402, F401 - registers collectives for fake tensors
from torch import Tensor  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402
from torch.utils._mode_utils import no_dispatch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_iter, tree_map_only  # noqa: E402
from torch.utils.weak import WeakIdKeyDictionary  # noqa: E402

aten = torch.ops.aten
LARGEST_SHADOW, LARGEST_FLOATS = 1 << 26, 1 << 20  # elements, of whole numbers and of others on the host
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
BLOCK = 512  # bytes that the CUDA allocator rounds up to
# Operators whose result's shape depends on data: on a GPU the host waits for it.
SHAPED_BY_DATA = {
    aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor, aten._unique2.default, aten.unique_dim.default,
    aten.unique_consecutive.default, aten.equal.default,
}  # fmt: skip

_library = torch.library.Library("c10d", "IMPL")
for _name in ("reduce_scatter_tensor_coalesced_", "allgather_into_tensor_coalesced_", "allreduce_coalesced_"):
    with contextlib.suppress(RuntimeError):  # it has one
        _library.impl(_name, lambda *arguments: registrations.create_fakework(arguments, return_first_arg=False), "Meta")


class PretendedGpu(TorchDispatchMode):
    """The device while a `with` lasts. live, peak: bytes. reads: what the host waited for, by kind. sent: bytes that collectives were given, and
    collectives: how many there were, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.live = self.peak = 0
        self.reads: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.collectives: Counter[str] = Counter()
        self._values = WeakIdKeyDictionary()
        self._sizes: dict[int, int] = {}
        self._storages: dict[int, Any] = {}

    def __enter__(self) -> "PretendedGpu":  # type: ignore[override]
        self.fake.__enter__()
        return super().__enter__()  # type: ignore[return-value]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def reset(self) -> None:
        """Counts from here on."""
        self.peak = self.live
        for counter in (self.reads, self.sent, self.collectives):
            counter.clear()

    def resized(self, storage: torch.UntypedStorage) -> None:
        """A storage has been given another size in place."""
        key = storage._cdata
        if key in self._sizes:
            self.live += storage.nbytes() - self._sizes[key]
            self._sizes[key] = storage.nbytes()
            self.peak = max(self.peak, self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [tensor for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor)]
        if func.namespace == "c10d":
            self.collectives[func._opname] += 1
            self.sent[func._opname] += sum(tensor.nbytes for tensor in given)
        known = all(self._value(tensor) is not None for tensor in given)
        here = any(tensor.device.type == "cuda" for tensor in given)
        if func is aten._local_scalar_dense.default:
            return self._item(args[0])
        if func in SHAPED_BY_DATA and known:
            self.reads[func._opname] += here
            with no_dispatch():
                found = func(*tree_map_only(Tensor, self._value, args), **kwargs)
            return tree_map_only(Tensor, lambda value: self._made(value, given[0].device), found)
        if func in (aten.index.Tensor, aten.index_put_.default):
            args = self._with_places(args, here)
            given = [tensor for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor)]
            known = all(self._value(tensor) is not None for tensor in given)
        if func in (aten._to_copy.default, aten.copy_.default):
            self._count_copy(func, args, kwargs)
        out = func(*args, **kwargs)
        made = [tensor for tensor in tree_iter(out) if isinstance(tensor, FakeTensor)]
        for tensor in made:
            self._track(tensor)
        if made and known and func.namespace != "c10d" and self._is_kept(func, made):
            self._compute(func, args, kwargs, out)
        elif given and made and func._schema.is_mutable and isinstance(given[0], FakeTensor):
            self._values.pop(given[0], None)
        return out

    def _value(self, tensor: Tensor) -> Tensor | None:
        return self._values.get(tensor) if isinstance(tensor, FakeTensor) else tensor

    def _is_kept(self, func: Any, made: list[FakeTensor]) -> bool:
        on_host, whole = all(tensor.device.type == "cpu" for tensor in made), all(tensor.dtype in INTEGERS for tensor in made)
        if sum(tensor.numel() for tensor in made) > (LARGEST_SHADOW if whole else LARGEST_FLOATS) or (
            "rand" in func._opname and not on_host
        ):
            return False
        return on_host or whole or all(tensor.numel() == 0 for tensor in made)

    def _item(self, tensor: Tensor) -> Any:
        self.reads["item"] += tensor.device.type == "cuda"
        value = self._value(tensor)
        if value is None:
            return 1.0 if tensor.dtype.is_floating_point else True if tensor.dtype == torch.bool else 1
        with no_dispatch():
            return aten._local_scalar_dense.default(value)

    def _with_places(self, args: Any, here: bool) -> Any:
        """Masks among the indices as the places that they stand for; where they are set to one number there is nothing to find out."""
        if len(args) > 2 and args[2].numel() == 1:
            return args
        indices: list[Tensor | None] = []
        for index in args[1]:
            if index is None or index.dtype != torch.bool:
                indices.append(index)
                continue
            self.reads["boolean index"] += here
            value = self._value(index)
            assert value is not None, "a mask whose values are not known"
            with no_dispatch():
                places = value.nonzero().unbind(1)
            indices += [self._made(place, index.device) for place in places]
        return (args[0], indices, *args[2:])

    def _count_copy(self, func: Any, args: Any, kwargs: Any) -> None:
        if func is aten._to_copy.default:
            source, target = args[0], torch.device(kwargs.get("device") or args[0].device)
            quick = kwargs.get("non_blocking", False)
        else:
            source, target = args[1], args[0].device
            quick = len(args) > 2 and args[2]
        if source.device.type == "cuda" and target.type == "cpu":
            self.reads["copy to host"] += 1
        elif source.device.type == "cpu" and target.type == "cuda" and source.dim() and not (quick and hasattr(source, "pretended_pinned")):
            self.reads["pageable copy"] += 1

    def _compute(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        args, kwargs = tree_map_only(Tensor, self._value, (args, kwargs))
        kwargs = {name: value for name, value in kwargs.items() if name not in ("pin_memory", "device")}
        with no_dispatch():
            try:
                real = func(*args, **kwargs)
            except (RuntimeError, NotImplementedError):
                return
        for fake, value in zip(tree_iter(out), tree_iter(real), strict=True):
            if isinstance(fake, FakeTensor) and fake.shape == value.shape:
                self._values[fake] = value

    def _made(self, value: Tensor, device: torch.device) -> Tensor:
        with no_dispatch():
            value = value.clone()
        fake = aten.empty_strided.default(list(value.shape), list(value.stride()), dtype=value.dtype, device=device)
        self._values[fake] = value
        self._track(fake)
        return fake

    def _track(self, tensor: FakeTensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if tensor.device.type != "cuda" or key in self._sizes:
            return
        self._sizes[key] = -(-storage.nbytes() // BLOCK) * BLOCK
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)

        def gone(_: Any) -> None:
            self.live -= self._sizes.pop(key, 0)
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, gone)


@contextlib.contextmanager
def on_pretended_gpu(rank: int, ranks: int) -> Iterator[PretendedGpu]:
    """Inside, this process is rank `rank` of a job of pretended ranks, each with such a device. To be used once in a process."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    gpu = PretendedGpu()
    _answer_for_cuda(gpu)
    new_group = dist.new_group
    dist.new_group = lambda *x, **k: new_group(*x, **{**k, "backend": "fake", "pg_options": None})  # type: ignore[assignment]

    def all_gather_object(out: list[Any], mine: Any, group: Any = None) -> None:
        out[:] = [mine] * len(out)

    dist.all_gather_object = all_gather_object  # type: ignore[assignment]
    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    with gpu:
        yield gpu


def _answer_for_cuda(gpu: PretendedGpu) -> None:
    """What a build for the CPU has not, and what fake tensors do not do."""

    def waited(*_: Any) -> None:
        gpu.reads["synchronize"] += 1

    cuda: Any = torch.cuda
    cuda.current_device, cuda.synchronize, cuda.get_device_capability = lambda: 0, waited, lambda *_: (9, 0)
    for name in ("set_device", "manual_seed", "empty_cache"):
        setattr(cuda, name, lambda *_: None)
    cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8)

    def pinned(tensor: Tensor, *_: Any) -> Tensor:
        copy: Any = tensor.clone()
        copy.pretended_pinned = True
        return copy

    torch.Tensor.pin_memory = pinned  # type: ignore[method-assign, assignment]
    kind = torch.Tensor.type
    names = {torch.bfloat16: "BFloat16Tensor", torch.float32: "FloatTensor"}
    torch.Tensor.type = lambda t, *x, **k: (  # type: ignore[method-assign, assignment, misc]
        kind(t, *x, **k) if x or k else f"torch.{'cuda.' if t.device.type == 'cuda' else ''}{names.get(t.dtype, t.dtype)}"
    )
    torch.nn.Module._apply = _apply  # type: ignore[method-assign, assignment]
    resize = torch.storage.TypedStorage.resize_

    def resized(storage: torch.storage.TypedStorage, size: int) -> None:
        resize(storage, size)
        gpu.resized(storage._untyped_storage)

    torch.storage.TypedStorage.resize_ = resized  # type: ignore[method-assign]


def _apply(self: torch.nn.Module, fn: Any, recurse: bool = True) -> torch.nn.Module:
    """torch's own sets `.data`, which a fake tensor takes from no other device or dtype."""
    for child in self.children():
        child._apply(fn)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            new = fn(parameter.data)
            if new.dtype != parameter.dtype or new.device != parameter.device:
                made = torch.nn.Parameter(new, parameter.requires_grad)
                made.__dict__.update({key: value for key, value in parameter.__dict__.items() if key not in new.__dict__})
                self._parameters[name] = made
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = fn(buffer)
    return self
