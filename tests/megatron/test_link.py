"""How weights reach ranks that only sample: what is sent, and over which of the line's groups."""

from collections import deque
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from azr_nemo.megatron import link as link_module
from azr_nemo.megatron.commands import receive
from azr_nemo.megatron.link import Link
from azr_nemo.megatron.sampling_ranks import RemoteSamplers, received_weights

CPU = torch.device("cpu")


class Line:
    """Both ends of a link: what was broadcast is there to be received, in order."""

    ranks, device = 2, CPU

    def __init__(self) -> None:
        self.sent, self.weights = deque[Tensor](), deque[Tensor]()
        self.receiving = False

    def broadcast(self, tensor: Tensor) -> None:
        self._pass(self.sent, tensor)

    def hand_over(self, tensor: Tensor) -> None:
        self._pass(self.weights, tensor)

    def _pass(self, queue: deque[Tensor], tensor: Tensor) -> None:
        if self.receiving:
            tensor.copy_(queue.popleft())
        else:
            queue.append(tensor.clone())


def test_weights_arrive_as_they_were_sent_whatever_their_type_and_shape() -> None:
    line = Line()
    stream = {
        "matrix": torch.arange(6, dtype=torch.bfloat16).view(2, 3).t(),
        "vector": torch.tensor([0.1, float("inf")]),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 4),
    }
    RemoteSamplers(line, 1).refit(stream.items(), version=7)  # type: ignore[arg-type]
    line.receiving = True
    command = receive(line.broadcast)
    assert (command.name, command.settings) == ("refit", {"version": 7})
    found = dict(received_weights(line))  # type: ignore[arg-type]
    assert list(found) == list(stream)
    for name, tensor in stream.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
    assert not line.sent
    assert not line.weights


def test_on_gpus_weights_have_a_group_of_the_devices_own_and_commands_stay_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    over: list[Tensor] = []
    group = SimpleNamespace(broadcast=lambda tensor, root: over.append(tensor) or SimpleNamespace(wait=lambda: None))
    monkeypatch.setattr(link_module, "nccl", lambda *_: group)
    links = [Link(dist.HashStore(), 0, 1, timedelta(seconds=60), torch.device(name)) for name in ("cpu", "cuda")]
    weight, command = torch.ones(3, dtype=torch.uint8), torch.ones(2)
    for link in links:
        link.broadcast(command)
        link.hand_over(weight)
    assert len(over) == 1
    assert over[0] is weight
