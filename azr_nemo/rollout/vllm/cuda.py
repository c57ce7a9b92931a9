"""The weights' CUDA ways to a vLLM server, by its own weight-transfer calls: handles of GPU memory that both share, or NCCL. Not run on hardware yet.

Read in vLLM 0.32, `distributed/weight_transfer/{ipc_engine,nccl_engine,nccl_common,packed_tensor}.py`; tests/rollout/vllm/test_cuda_contract.py
holds the signatures.
"""

import base64
import pickle
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from azr_nemo.rollout.vllm.client import Client
from azr_nemo.rollout.vllm.weights import pieces

PIECE_BYTES = 2**30  # of weights that are on their way: copies beside the trainer's own


class CudaHandles:
    """`ipc`: trainer and sampler share the GPUs. A handle opens only on the GPU that it was made on, so each rank makes those of its own."""

    backend, repeats = "ipc", False

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None) -> None:
        self._uuid = str(torch.cuda.get_device_properties(device).uuid)
        self._group = group

    def connect(self, client: Client | None) -> None:
        if client is not None:
            client.call("/init_weight_transfer_engine", {"init_info": {"packed": False}})

    def send(self, client: Client | None, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        torch.cuda.empty_cache()  # what training left cached is the server's
        with client.changing() if client is not None else nullcontext():
            self._send(client, weights, version)
        torch.cuda.ipc_collect()

    def _send(self, client: Client | None, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        if client is not None:
            client.call("/start_weight_update")
        for piece in pieces(weights, PIECE_BYTES):
            merged = self._merge([{self._uuid: reduce_tensor(tensor)[1]} for _, tensor in piece])
            if client is not None:
                # vLLM takes handles over HTTP as pickles alone; the secret of the server keeps others' away.
                handles = base64.b64encode(pickle.dumps(merged)).decode()
                client.call("/update_weights", {"update_info": {**_described(piece), "ipc_handles_pickled": handles}})
            if self._group is not None:
                dist.barrier(group=self._group)  # until then the tensors must live
        if client is not None:
            client.call("/finish_weight_update", {"weight_version": str(version)})

    def repeat(self, client: Client, version: int) -> None:
        raise NotImplementedError("the weights that were sent are gone")

    def close(self) -> None:
        return

    def _merge(self, mine: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each tensor's handles, of every GPU of the replica."""
        if self._group is None:
            return mine
        parts: list[Any] = [None] * self._group.size()
        dist.all_gather_object(parts, mine, group=self._group)
        return [{uuid: handle for one in of_tensor for uuid, handle in one.items()} for of_tensor in zip(*parts, strict=True)]


class Nccl:
    """`nccl`: the sampler has GPUs of its own, on any node. The leading rank broadcasts each tensor to the server's workers."""

    backend, repeats = "nccl", False

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._communicator: Any = None

    def connect(self, client: Client | None) -> None:
        """Opens the communicator: this rank is 0 in it, the server's workers come after."""
        if client is None:
            return
        import torch.cuda.nccl as nccl

        size = client.get("/get_world_size")["world_size"] + 1
        identity = nccl.unique_id()
        described = {"nccl_unique_id_b64": base64.b64encode(identity).decode(), "rank_offset": 1, "world_size": size, "packed": False}
        with ThreadPoolExecutor(1) as beside:  # the workers wait in this call for rank 0 to join
            joining = beside.submit(client.call, "/init_weight_transfer_engine", {"init_info": described})
            self._communicator = nccl.init_rank(size, identity, 0)
            # Each member of vLLM's group begins with a sum of one element.
            nccl.all_reduce([torch.zeros(1, device=self._device)], comms=[self._communicator])
            joining.result()

    def send(self, client: Client | None, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        with client.changing() if client is not None else nullcontext():
            self._send(client, weights, version)

    def _send(self, client: Client | None, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        import torch.cuda.nccl as nccl

        if client is not None:
            client.call("/start_weight_update")
        for piece in pieces(weights, PIECE_BYTES):
            if client is None:
                continue  # its share of the stream's collectives is all that is wanted
            with ThreadPoolExecutor(1) as beside:
                receiving = beside.submit(client.call, "/update_weights", {"update_info": _described(piece)})
                for _, tensor in piece:
                    nccl.broadcast([tensor.to(self._device).contiguous()], comms=[self._communicator])
                receiving.result()
            torch.cuda.synchronize(self._device)
        if client is not None:
            client.call("/finish_weight_update", {"weight_version": str(version)})

    def repeat(self, client: Client, version: int) -> None:
        raise NotImplementedError("the weights that were sent are gone")

    def close(self) -> None:
        self._communicator = None


def _described(piece: list[tuple[str, Tensor]]) -> dict[str, Any]:
    return {
        "names": [name for name, _ in piece],
        "dtype_names": [str(tensor.dtype).removeprefix("torch.") for _, tensor in piece],
        "shapes": [list(tensor.shape) for _, tensor in piece],
    }
