"""The CUDA ways of the weights against the signatures of vLLM 0.32 that they were read in: a contract, not a run on hardware.

Recorded from vllm/distributed/weight_transfer/ipc_engine.py, nccl_engine.py, nccl_common.py and entrypoints/rl/online/api_router.py.
"""

import base64
import inspect
import pickle
from types import SimpleNamespace

import pytest
import torch

from azr_nemo.rollout.vllm import cuda
from azr_nemo.rollout.vllm.client import Client

CUDA = torch.device("cuda", 0)
Given = inspect.Parameter


def fields(**defaults):
    kinds = Given.KEYWORD_ONLY
    return inspect.Signature([Given(name, kinds, default=Given.empty if value is ... else value) for name, value in defaults.items()])


IPC_INIT = fields(packed=False)
IPC_UPDATE = fields(names=..., dtype_names=..., shapes=..., ipc_handles=None, ipc_handles_pickled=None, tensor_sizes=None)
NCCL_INIT = fields(
    master_address=None, master_port=None, rank_offset=..., world_size=..., nccl_unique_id_b64=None, packed=False,
    packed_buffer_size_bytes=1 << 30, packed_num_buffers=2,
)  # fmt: skip
NCCL_UPDATE = fields(names=..., dtype_names=..., shapes=...)


class Server:
    """Takes the RL calls in their order only, and binds what they carry to the recorded signatures."""

    changing = Client.changing

    def __init__(self, init, update, between_tokens):
        self.init, self.update, self.state, self.seen, self.version, self.calls = init, update, "new", [], None, []
        self._between_tokens, self.paused = between_tokens, False

    def get(self, path):
        assert path == "/get_world_size"
        return {"world_size": 2}

    def call(self, path, body=None, **query):
        self.calls.append(path)
        match path:
            case "/init_weight_transfer_engine":
                assert self.state == "new"
                self.given, self.state = self.init.bind(**body["init_info"]).arguments, "ready"
            case "/start_weight_update":
                assert self.state == "ready"
                assert self.paused == self._between_tokens
                self.state = "updating"
            case "/pause":
                assert query == {"mode": "keep"}
                self.paused = True
            case "/resume":
                assert self.state == "ready"
                self.paused = False
            case "/update_weights":
                assert self.state == "updating"
                given = self.update.bind(**body["update_info"]).arguments
                assert len(given["names"]) == len(given["dtype_names"]) == len(given["shapes"])
                assert all(hasattr(torch, name) for name in given["dtype_names"])
                self.seen.append(given)
            case "/finish_weight_update":
                assert self.state == "updating"
                self.version, self.state = body["weight_version"], "ready"


@pytest.fixture
def weights(monkeypatch):
    monkeypatch.setattr(cuda, "PIECE_BYTES", 100)  # two tensors a piece
    return [(f"layer.{number}", torch.full((4, 4), float(number), dtype=torch.bfloat16)) for number in range(5)]


@pytest.mark.parametrize("between_tokens", [False, True])
def test_handles_go_in_pieces_with_the_gpu_that_they_open_on(monkeypatch, weights, between_tokens):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "ipc_collect", lambda: None)
    monkeypatch.setattr(cuda, "reduce_tensor", lambda tensor: ("rebuild", ("handle", float(tensor[0, 0]))))
    server, transfer = Server(IPC_INIT, IPC_UPDATE, between_tokens), cuda.CudaHandles(CUDA, None)
    transfer.connect(server)
    for version in (1, 2):
        transfer.send(server, iter(weights), version)
        assert (server.version, server.paused) == (str(version), False)
    assert [len(given["names"]) for given in server.seen] == [4, 1] * 2
    handles = [handle for given in server.seen[:2] for handle in pickle.loads(base64.b64decode(given["ipc_handles_pickled"]))]  # noqa: S301
    assert handles == [{"1234": ("handle", float(number))} for number in range(5)]
    assert server.seen[0]["shapes"] == [[4, 4]] * 4
    assert server.seen[0]["dtype_names"] == ["bfloat16"] * 4
    assert not transfer.repeats


@pytest.mark.parametrize("between_tokens", [False, True])
def test_nccl_broadcasts_each_tensor_while_the_server_receives(monkeypatch, weights, between_tokens):
    done = []
    monkeypatch.setattr(torch.cuda.nccl, "unique_id", lambda: b"x" * 128)
    monkeypatch.setattr(torch.cuda.nccl, "init_rank", lambda size, identity, rank: done.append((size, identity, rank)) or "communicator")
    monkeypatch.setattr(torch.cuda.nccl, "all_reduce", lambda inputs, comms=None: done.append(("sum", inputs[0].numel(), comms)))
    monkeypatch.setattr(torch.cuda.nccl, "broadcast", lambda inputs, comms=None: done.append((float(inputs[0][0, 0]), comms)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    server, transfer = Server(NCCL_INIT, NCCL_UPDATE, between_tokens), cuda.Nccl(torch.device("cpu"))
    transfer.connect(server)
    assert server.given["world_size"] == 3
    assert server.given["rank_offset"] == 1
    assert base64.b64decode(server.given["nccl_unique_id_b64"]) == b"x" * 128
    assert done == [(3, b"x" * 128, 0), ("sum", 1, ["communicator"])]
    transfer.send(server, iter(weights), 7)
    assert [value for value, comms in done[2:]] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [name for given in server.seen for name in given["names"]] == [name for name, _ in weights]
    assert (server.version, server.paused) == ("7", False)


def test_a_rank_that_does_not_lead_only_takes_part_in_the_stream(weights):
    transfer = cuda.Nccl(torch.device("cpu"))
    transfer.connect(None)
    stream = iter(weights)
    transfer.send(None, stream, 1)
    assert next(stream, None) is None
