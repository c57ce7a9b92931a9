"""The process group and Megatron's parallel layout, with or without a launcher; how ranks tell each other what failed."""

import atexit
import os
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from azr_nemo.errors import UserError
from azr_nemo.megatron.platform import Platform

# The longest that a rank waits for another one: generating, executing and grading a large batch lies between two commands.
TIMEOUT = timedelta(hours=2)

_store: dist.Store | None = None


def start(platform: Platform, tensor_parallel_size: int, pipeline_parallel_size: int) -> None:
    """Joins the job and lays out tensor, pipeline and data parallelism.

    Under torchrun (RANK and WORLD_SIZE set) ranks meet at MASTER_ADDR:MASTER_PORT. A single process needs no port at all, so that jobs on
    one machine cannot collide. May be called again in the same process: an existing group is reused and the layout replaced.
    """
    global _store
    if platform.device.type == "cuda":
        torch.cuda.set_device(platform.device)
    if not dist.is_initialized():
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            _store, rank = dist.HashStore(), 0
        else:
            _store, rank, world = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
        dist.init_process_group(platform.backend, store=dist.PrefixStore("group", _store), rank=rank, world_size=world, timeout=TIMEOUT)
        atexit.register(stop)
    if parallel_state.model_parallel_is_initialized():
        if (
            parallel_state.get_tensor_model_parallel_world_size() == tensor_parallel_size
            and parallel_state.get_pipeline_model_parallel_world_size() == pipeline_parallel_size
        ):
            return
        parallel_state.destroy_model_parallel()
    with platform.scope():
        parallel_state.initialize_model_parallel(tensor_parallel_size, pipeline_parallel_size)
        # Megatron forks its CUDA random state around dropout; there is no dropout here, and the inference tracker's fork is a no-op.
        tensor_parallel.model_parallel_cuda_manual_seed(1, inference_rng_tracker=platform.device.type == "cpu", force_reset_rng=True)


def stop() -> None:
    """Leaves the job; harmless when not in one."""
    global _store
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
    _store = None


def report_failure(rank: int, sentence: str) -> None:
    """Leaves word for rank 0, which otherwise only sees a broken connection."""
    if _store is not None:
        _store.set(f"failure/{rank}", sentence)


def reported_failure(wait_s: float = 5.0) -> str | None:
    """The sentence of the first rank that reported one, waiting at most wait_s seconds for it."""
    deadline = time.monotonic() + wait_s
    while _store is not None and time.monotonic() < deadline:
        for rank in range(1, dist.get_world_size()):
            if _store.check([f"failure/{rank}"]):
                return _store.get(f"failure/{rank}").decode()
        time.sleep(0.05)
    return None


def world_size() -> int:
    """Ranks of this job, also before `start`."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's rank, also before `start`."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def lost(error: Exception, command: str) -> UserError:
    """What to raise on rank 0 when a collective broke: the sentence of the rank that failed, where there is one."""
    sentence = reported_failure() or f"a rank was lost during `{command}` ({error}): look at the other ranks' output"
    return UserError(sentence)
