"""The process group and Megatron's parallel layout, with or without a launcher; who says what when a rank is lost."""

import atexit
import contextlib
import math
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from azr_nemo.errors import UserError
from azr_nemo.megatron.link import Link
from azr_nemo.megatron.platform import Platform
from azr_nemo.megatron.watchdog import Watchdog

WATCHDOG_S = 7200.0
# Of the watchdog's bound: what a collective waits, in every group. The watchdog knows whom to name; a long generation with progress must not end in a
# blind timeout.
PATIENCE = 4
# What the message of a collective that broke speaks of; any other error of a rank is its own.
BROKEN = ("gloo", "nccl", "connection", "timed out", "socket", "store")

_store: dist.Store | None = None
_watchdog: Watchdog | None = None
_samples_group: dist.ProcessGroup | None = None
_link: Link | None = None
_starts = 0


def start(
    platform: Platform, tensor_parallel_size: int, pipeline_parallel_size: int, watchdog_s: float = WATCHDOG_S, samplers: int = 0
) -> None:
    """Joins the job and lays out tensor, pipeline and data parallelism.

    Under torchrun (RANK and WORLD_SIZE set) ranks meet at MASTER_ADDR:MASTER_PORT. A single process needs no port at all, so that jobs on
    one machine cannot collide. May be called again in the same process: an existing group is reused and the layout replaced.
    watchdog_s: within it the run ends when a rank dies or hangs. samplers: how many of the job's ranks, the last ones, only sample: they and the
    others are a world each, with a link between them, and one watchdog. Raises UserError when not all ranks meet within it.
    """
    global _store, _watchdog, _samples_group, _link, _starts
    if platform.device.type == "cuda":
        # Communication of tensor and sequence parallelism overlaps with products only when kernels start in the order of their calls.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        torch.cuda.set_device(platform.device)
    if not dist.is_initialized():
        world = int(os.environ.get("WORLD_SIZE", "1"))
        timeout = timedelta(seconds=PATIENCE * watchdog_s)
        if world == 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            _store, rank = dist.HashStore(), 0
        else:
            _store, rank, world = _meet(world, watchdog_s)
        _starts += 1  # a job may start again with the store of the first time, whose keys must not be mistaken for its own
        store = dist.PrefixStore(f"start/{_starts}", _store)
        trainers = world - samplers
        samples = rank >= trainers
        name, own, of = ("samplers", rank - trainers, samplers) if samples else ("group", rank, trainers)
        dist.init_process_group(platform.backend, store=dist.PrefixStore(name, store), rank=own, world_size=of, timeout=timeout)
        _watchdog = Watchdog(store, rank, world, watchdog_s, on_device=platform.device.type == "cuda")
        if samplers and (samples or rank == 0):
            _link = Link(store, own + 1 if samples else 0, samplers + 1, timeout, platform.device)
        _samples_group = dist.new_group(backend="gloo", timeout=timeout)
        atexit.register(stop)
        if samples:
            return
    if parallel_state.model_parallel_is_initialized():
        if (
            parallel_state.get_tensor_model_parallel_world_size() == tensor_parallel_size
            and parallel_state.get_pipeline_model_parallel_world_size() == pipeline_parallel_size
        ):
            return
        parallel_state.destroy_model_parallel()
    with platform.scope():
        parallel_state.initialize_model_parallel(
            tensor_parallel_size, pipeline_parallel_size, distributed_timeout_minutes=math.ceil(PATIENCE * watchdog_s / 60)
        )
        # Megatron forks its CUDA random state around dropout; there is no dropout here, and the inference tracker's fork is a no-op.
        tensor_parallel.model_parallel_cuda_manual_seed(1, inference_rng_tracker=platform.device.type == "cpu", force_reset_rng=True)


def _meet(world: int, wait_s: float) -> tuple[dist.Store, int, int]:
    try:
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=wait_s))))
        store.set(f"met/{rank}", "")
        store.wait([f"met/{other}" for other in range(world)], timedelta(seconds=wait_s))
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"the {world} ranks of the job did not all meet at {place} within runtime.watchdog_s={wait_s:g} s "
            f"({str(error).splitlines()[0]}): check that all were started and that the address can be reached from each node"
        ) from error
    return store, rank, world


def stop() -> None:
    """Leaves the job; harmless when not in one."""
    global _store, _watchdog, _samples_group, _link
    if _watchdog is not None:
        _watchdog.close()
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
    _store = _watchdog = _samples_group = _link = None


def samples_group() -> dist.ProcessGroup | None:
    """The group over which samples travel to rank 0 from threads of their own, beside whatever else the ranks say."""
    return _samples_group


def link() -> Link | None:
    """Between rank 0 and the ranks that only sample; None where there are none."""
    return _link


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """What the watchdog says this rank is doing inside: a command that all ranks run."""
    if _watchdog is not None:
        _watchdog.begin(name)
    try:
        yield
    finally:
        if _watchdog is not None:
            _watchdog.end()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Inside, this rank waits for another one without being in a collective."""
    if _watchdog is not None:
        _watchdog.wait_for_others(True)
    try:
        yield
    finally:
        if _watchdog is not None:
            _watchdog.wait_for_others(False)


def wait_for_others() -> None:
    """Tells the watchdog that this rank waits for another one, until its next command."""
    if _watchdog is not None:
        _watchdog.wait_for_others(True)


def advance() -> None:
    """Tells the watchdog that this rank makes progress."""
    if _watchdog is not None:
        _watchdog.advance()


def failed(error: BaseException, command: str) -> UserError | None:
    """What to raise where `error` broke off a command: the sentence of the rank that is to blame. None when that is this rank itself.

    Every other rank then ends with the same sentence. Never returns None for an error of a collective.
    """
    if _watchdog is None or _watchdog.ranks == 1:
        return None
    words = str(error).lower()
    broken = isinstance(error, RuntimeError) and any(word in words for word in BROKEN)
    # A break is explained within seconds; an error of this rank's own waits only as long as another rank's word may take.
    sentence = _watchdog.culprit(wait_s=min(_watchdog.silent_s, 60.0) if broken else 2 + 4 * _watchdog.interval)
    if sentence is None and broken:
        sentence = f"a rank was lost in the phase `{command}` ({str(error).splitlines()[0]}): look at the output of all ranks"
    if sentence is None:
        return None
    _watchdog.fail(sentence)
    return UserError(sentence)


def report_failure(sentence: str) -> None:
    """Leaves word for the other ranks, which end with this sentence."""
    if _watchdog is not None:
        _watchdog.fail(sentence)


def open_store() -> dist.Store:
    """A connection of its own to the job's store, for a thread: the job's is held by whoever waits on it. Only in a job."""
    assert _store is not None
    return dist.PrefixStore(f"start/{_starts}", _store).clone()


def largest(value: float) -> float:
    """That of all ranks. Collective."""
    values = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return float(values)


def has_failed() -> bool:
    """Whether the job is ending because of a rank that failed or was lost."""
    return _watchdog is not None and (_watchdog.failing or _watchdog.verdict is not None)


def world_size() -> int:
    """Ranks of this job, also before `start`."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's rank, also before `start`."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))
