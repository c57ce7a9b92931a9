"""The line between rank 0 of the trainer and the ranks that only sample (`placement=split`): commands and weights out, samples back, beside whatever
the trainer's ranks say to each other."""

from datetime import timedelta

import torch.distributed as dist
from torch import Tensor


class Link:
    """rank: 0 is the trainer's, 1 and up are the samplers'. Commands and samples have a group each, as they travel at the same time from different
    threads. All methods raise RuntimeError when the other end is gone."""

    def __init__(self, store: dist.Store, rank: int, ranks: int, timeout: timedelta) -> None:
        self.rank, self.ranks = rank, ranks
        self._commands = dist.ProcessGroupGloo(dist.PrefixStore("link/commands", store), rank, ranks, timeout)
        self._samples = dist.ProcessGroupGloo(dist.PrefixStore("link/samples", store), rank, ranks, timeout)

    def broadcast(self, tensor: Tensor) -> None:
        """From the trainer to every sampler, in place."""
        self._commands.broadcast(tensor, 0).wait()

    def send(self, tensor: Tensor) -> None:
        """To the trainer."""
        self._samples.send([tensor], 0, 0).wait()

    def recv(self, tensor: Tensor, source: int) -> None:
        """From a sampler, in place."""
        self._samples.recv([tensor], source, 0).wait()
