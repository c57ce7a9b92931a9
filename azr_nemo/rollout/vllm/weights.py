"""Handing the weight stream to a vLLM server: through shared memory on the same machine. The CUDA ways are in `cuda`."""

import os
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from azr_nemo.errors import UserError
from azr_nemo.rollout.vllm.client import Client

PIECE_BYTES = 2**28  # of weights that are copied at a time
CHANGING = "being replaced"  # the version while an update is under way: samples of it are an error


class Transfer(Protocol):
    """A way of the weights from the trainer to the server. Collective over the ranks of a replica; only the leading rank has a client."""

    backend: str  # vLLM's own weight-transfer backend that it uses, or empty
    repeats: bool  # whether it keeps what was sent last, for a server that is started anew

    def connect(self, client: Client | None) -> None:
        """Once for each start of the server, before anything is sent."""

    def send(self, client: Client | None, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Hands over every tensor; afterwards the server calls its weights `version`. Raises UserError when it cannot."""

    def repeat(self, client: Client, version: int) -> None:
        """Hands over again what was sent last."""

    def close(self) -> None:
        """Gives up what it holds."""


class SharedMemory:
    """Through files in memory that have no name: nothing is left behind whatever ends the run, and /dev/shm may be small.

    They are kept until the next ones: a server that is started anew takes them again.
    """

    backend, repeats = "", True

    def __init__(self) -> None:
        self._pieces: list[int] = []  # file descriptors
        self._count = 0  # tensors in them

    def connect(self, client: Client | None) -> None:
        return

    def send(self, client: Client | None, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        self.close()
        for number, piece in enumerate(pieces(weights)):
            if client is not None:
                self._write(number, piece)
        if client is not None:
            self._load(client, version)

    def repeat(self, client: Client, version: int) -> None:
        self._load(client, version)

    def close(self) -> None:
        """Gives the memory back."""
        while self._pieces:
            os.close(self._pieces.pop())
        self._count = 0

    def _write(self, number: int, piece: list[tuple[str, Tensor]]) -> None:
        descriptor = os.memfd_create(f"azr-nemo-weights-{number}", os.MFD_CLOEXEC)
        self._pieces.append(descriptor)
        size = sum(tensor.nbytes for _, tensor in piece)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(save({name: tensor.cpu().contiguous() for name, tensor in piece}))
        except (OSError, MemoryError) as error:
            self.close()
            raise UserError(
                f"the weights for rollout=vllm do not fit into shared memory ({size / 2**20:.0f} MiB more: {error}): give the run more memory"
            ) from error
        self._count += len(piece)

    def _load(self, client: Client, version: int) -> None:
        paths = [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in self._pieces]
        with client.changing():
            client.call("/update_weight_version", {"new_version": CHANGING})
            answer = client.call("/collective_rpc", {"method": "load_pieces", "args": [paths]})
            counts = [result["tensors"] for result in answer["results"]]
            if set(counts) != {self._count}:
                raise RuntimeError(f"the vLLM server's workers loaded {counts} tensors, not {self._count}")
            client.call("/update_weight_version", {"new_version": str(version)})


def pieces(weights: Iterable[tuple[str, Tensor]], size: int = PIECE_BYTES) -> Iterator[list[tuple[str, Tensor]]]:
    """The stream in lists of about `size` bytes. The tensors are copies: the stream's own may be gone with its next."""
    piece: list[tuple[str, Tensor]] = []
    held = 0
    with torch.no_grad():
        for name, tensor in weights:
            piece.append((name, tensor.detach().clone()))
            held += tensor.nbytes
            if held >= size:
                yield piece
                piece, held = [], 0
    if piece:
        yield piece
