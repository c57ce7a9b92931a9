"""The line between rank 0 of the trainer and the ranks that only sample (`placement=split`): commands and weights out, samples back, beside whatever
the trainer's ranks say to each other."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Link:
    """rank: 0 is the trainer's, 1 and up are the samplers'. device: where weights lie. Commands and samples have a group each, as they travel at the
    same time from different threads. All methods raise RuntimeError when the other end is gone."""

    def __init__(self, store: dist.Store, rank: int, ranks: int, timeout: timedelta, device: torch.device) -> None:
        self.rank, self.ranks, self.device = rank, ranks, device
        self._commands = dist.ProcessGroupGloo(dist.PrefixStore("link/commands", store), rank, ranks, timeout)
        self._samples = dist.ProcessGroupGloo(dist.PrefixStore("link/samples", store), rank, ranks, timeout)

        self._weights = nccl(dist.PrefixStore("link/weights", store), rank, ranks, timeout) if device.type == "cuda" else self._commands

    def hand_over(self, tensor: Tensor) -> None:
        """A weight's bytes, on `device`, from the trainer to every sampler, in place."""
        self._weights.broadcast(tensor, 0).wait()

    def broadcast(self, tensor: Tensor) -> None:
        """From the trainer to every sampler, in place."""
        self._commands.broadcast(tensor, 0).wait()

    def send(self, tensor: Tensor) -> None:
        """To the trainer."""
        self._samples.send([tensor], 0, 0).wait()

    def recv(self, tensor: Tensor, source: int) -> None:
        """From a sampler, in place."""
        self._samples.recv([tensor], source, 0).wait()


def nccl(store: dist.Store, rank: int, ranks: int, timeout: timedelta) -> Any:
    """From GPU to GPU, each passing on what it gets. Only a CUDA build of torch has it; it makes its connections when it is first used."""
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, rank, ranks, options)
