"""What the tests ask of the stand-in for vLLM, and the weights that they hand over."""

import os
import signal
from typing import Any

import httpx
import pytest
import torch
from torch import Tensor

from azr_nemo.models import tiny
from azr_nemo.rollout.engine import SampleRequest
from azr_nemo.rollout.expected import Expected

REQUESTS = [SampleRequest((5, 6), 3, 6, 1.0, 11), SampleRequest((9,), 1, 8, 1.0, 12, first=3)]


def tiny_weights(value: float = 1.0) -> list[tuple[str, Tensor]]:
    """A stream of the tiny model's weights, all of one value."""
    shapes = Expected(tiny.config(tiny.tokenizer())).shapes
    return [(name, torch.full(shape, value)) for name, shape in shapes.items() if name != "lm_head.weight"]


def state(engine: Any) -> dict[str, Any]:
    """The stand-in's weights (each tensor's sum), its version, and what it was asked."""
    return httpx.get(f"{engine._server.url}/state", headers=engine._server.headers, trust_env=False).json()


def fault(engine: Any, **faults: Any) -> None:
    """Has the stand-in fail so from now on, and forget what it was asked."""
    httpx.post(f"{engine._server.url}/fake", json=faults, headers=engine._server.headers, trust_env=False)


def dies_while_it_loads(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the server be killed as it is told to load the weights."""
    call = engine._client.call

    def killing(path: str, body: Any = None, **query: str) -> Any:
        if path == "/collective_rpc":
            os.kill(engine._server._process.pid, signal.SIGKILL)
        return call(path, body, **query)

    monkeypatch.setattr(engine._client, "call", killing)
