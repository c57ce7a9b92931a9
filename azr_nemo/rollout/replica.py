"""A rollout replica that spans several ranks of one node: its process group, its GPUs, and what its workers inherit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from azr_nemo.errors import UserError

# The training job's, which the workers must not take for their own: names, and how other names begin.
LAUNCHER = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_NAME", "ROLE_WORLD_SIZE", "OMP_NUM_THREADS", "CUDA_DEVICE_MAX_CONNECTIONS",
)  # fmt: skip
LAUNCHERS = ("TORCHELASTIC_", "NCCL_", "TORCH_NCCL_")


def replica(size: int) -> tuple[dist.ProcessGroup | None, bool]:
    """The group of this rank's replica, None when it is alone in it, and whether it leads."""
    if size == 1:
        return None, True
    groups = [dist.new_group(list(range(first, first + size)), backend="gloo") for first in range(0, dist.get_world_size(), size)]
    return groups[dist.get_rank() // size], dist.get_rank() % size == 0


def gpus(first: int, size: int) -> str:
    """CUDA_VISIBLE_DEVICES of a replica. first: its leader's GPU among those that this process sees."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    mine = seen.split(",")[first : first + size] if seen else [str(number) for number in range(first, first + size)]
    if len(mine) < size:
        raise UserError(
            f"rollout.tensor_parallel={size}, but a rank sees only CUDA_VISIBLE_DEVICES={seen}: let it see all GPUs of its node"
        )
    return ",".join(mine)


@contextmanager
def environment(devices: str) -> Iterator[None]:
    """What the replica's Ray and its workers inherit: its GPUs, and nothing of the training job's launcher."""
    begun = [name for name in os.environ if name.startswith(LAUNCHERS)]
    kept = {name: os.environ.pop(name, None) for name in ("CUDA_VISIBLE_DEVICES", *LAUNCHER, *begun)}
    os.environ["CUDA_VISIBLE_DEVICES"] = devices
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
