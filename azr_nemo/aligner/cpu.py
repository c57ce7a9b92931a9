"""What lets the real NeMo-Aligner run without CUDA. `prepare` does nothing where there is a CUDA device.

NeMo 2.1, megatron-core 0.10 and NeMo-Aligner 0.7 are written for an NVIDIA container: they name CUDA devices, import TensorRT-LLM without a
guard, take gradient norms with apex and choose TransformerEngine's layers. Each of these is met here by its plain torch counterpart, and nowhere
else in the project. Megatron's own math is untouched.
"""

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from azr_nemo.errors import UserError

CPU = torch.device("cpu")
ABSENT = ("tensorrt_llm", "tensorrt", "mpi4py")  # imported by NeMo-Aligner at the top of utils/trt_llm.py, needed by rollout=trtllm alone
_prepared = False


def without_cuda() -> bool:
    return not torch.cuda.is_available()


def prepare() -> None:
    """Before NeMo-Aligner is imported: CUDA's names mean the CPU from here on, in this process. Idempotent."""
    global _prepared
    if _prepared:
        return
    _prepared = True
    if without_cuda():
        _redirect_torch()
    _import_with_stand_ins()
    if without_cuda():
        _redirect_nemo()


class CudaMeansCpu(TorchFunctionMode):
    """Redirects `device="cuda"` and `.cuda()` to the CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs = {**kwargs, "device": "cpu"}
        if func is torch.Tensor.cuda:
            return args[0]
        return func(*args, **kwargs)


def _redirect_torch() -> None:
    os.environ.setdefault("NVIDIA_PYTORCH_VERSION", "24.07")  # NeMo compares it with a pattern and fails on None; its own image says this
    cuda: Any = torch.cuda
    cuda.current_device = lambda: CPU
    for name in ("synchronize", "set_device", "empty_cache", "reset_peak_memory_stats"):
        setattr(cuda, name, lambda *args, **kwargs: None)
    cuda.is_initialized = lambda: True  # asked before a checkpoint's tensors are put on the device
    cuda.memory_allocated = cuda.max_memory_allocated = lambda *args, **kwargs: 0
    cuda.Stream = lambda *args, **kwargs: None  # made for TransformerEngine's layers, of which there are none
    cuda.LongTensor = lambda values: torch.as_tensor(values, dtype=torch.long)
    cuda.FloatTensor = lambda values: torch.as_tensor(values, dtype=torch.float32)
    cuda.ByteTensor = lambda values: torch.as_tensor(values, dtype=torch.uint8)
    cuda.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    cuda.manual_seed = torch.manual_seed
    torch.nn.Module.cuda = lambda self, device=None: self
    CudaMeansCpu().__enter__()  # for the rest of the process: NeMo-Aligner has no one place to put a scope around

    import megatron.core.tensor_parallel.random as random_state

    random_state._set_cuda_rng_state = lambda state, device=-1: torch.set_rng_state(state)


def _redirect_nemo() -> None:
    import nemo.collections.nlp.models.language_modeling.megatron_gpt_model as gpt_model
    import nemo.collections.nlp.models.nlp_model as nlp_model
    import nemo.collections.nlp.modules.common.megatron.build_model as build_model
    import nemo.collections.nlp.modules.common.megatron.utils as utilities
    import nemo.collections.nlp.parts.nlp_overrides as overrides
    import nemo.core.classes.modelPT as model_base
    import nemo_aligner.utils.train_utils as train_utils
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.tensor_parallel.layers import set_defaults_if_not_set_tensor_model_parallel_attributes

    gpt_model.get_specs = lambda *args, **kwargs: get_gpt_layer_local_spec()
    build_model.set_defaults_if_not_set_tensor_model_parallel_attributes = set_defaults_if_not_set_tensor_model_parallel_attributes
    overrides.HAVE_APEX = True  # of all that NLPDDPStrategy does, nothing needs apex on a CPU
    # Classes that its isinstance checks name, absent without apex.
    for name in ("MegatronDistributedFusedAdam", "McoreDistributedOptimizer"):
        if not hasattr(overrides, name):
            setattr(overrides, name, type(name, (), {}))
    # Which parameters are not decayed: apex's norms are asked for, torch's are there.
    utilities.listify_model = lambda model: model if isinstance(model, list) else [model]
    utilities.FusedLayerNorm = utilities.FastLayerNorm = torch.nn.LayerNorm
    utilities.MixedFusedRMSNorm = torch.nn.RMSNorm
    model_base.ModelPT.cuda = lambda self, device=None: self
    nlp_model.get_megatron_pretrained_bert_models = list
    train_utils.clip_grad_norm_fp32 = clip_grad_norm


def seed_model_parallel(seed: int) -> None:
    """The random state that Megatron forks around dropout, which NeMo makes only where it counts a CUDA device. There is no dropout here."""
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    model_parallel_cuda_manual_seed(seed)


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[torch.nn.Parameter], max_norm: float, norm_type: float = 2, use_fsdp: bool = False) -> torch.Tensor:
    """NeMo's clip_grad_norm_fp32 without apex: the 2-norm over all model-parallel ranks, each parameter counted once; scales in place."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.layers import param_is_not_tensor_parallel_duplicate
    from nemo.utils.model_utils import param_is_not_shared

    with_grad = [parameter for parameter in parameters if parameter.grad is not None]
    counted = [p.grad for p in with_grad if param_is_not_shared(p) and param_is_not_tensor_parallel_duplicate(p)]
    square = torch.stack([grad.float().pow(2).sum() for grad in counted]).sum() if counted else torch.zeros(())
    torch.distributed.all_reduce(square, group=parallel_state.get_model_parallel_group())
    norm = square.sqrt()
    if (scale := max_norm / (float(norm) + 1e-6)) < 1:
        for parameter in with_grad:
            parameter.grad.mul_(scale)
    return norm


class _AbsentType(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AbsentType(name, (Absent,), {})


class Absent(metaclass=_AbsentType):
    """Stands for whatever NeMo names of a package that is not installed; using it says so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise UserError("rollout=trtllm needs TensorRT-LLM, which is not installed: use rollout=nemo, or NeMo-Aligner's own container")


class _AbsentModule(types.ModuleType):
    __version__ = "0.13.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(Absent, name)


class _AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


def _import_with_stand_ins() -> None:
    """Imports the module that asks for the absent packages, with stand-ins that are gone again afterwards: others ask whether they are there."""
    finder = _AbsentFinder()
    sys.meta_path.append(finder)  # last: a package that is installed is found before
    try:
        importlib.import_module("nemo_aligner.utils.trt_llm")
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _AbsentModule):
                del sys.modules[name]
