"""The rollout engine gives up its memory while the ranks train, and is refitted before it samples again."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import EchoRollout, run_config, training_batch
from torch import Tensor

import azr_nemo.rollout
from azr_nemo.megatron.controller import build_engine
from azr_nemo.selfplay.exchange import Example


def test_the_rollout_engine_sleeps_while_the_ranks_train(model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Recorded(EchoRollout):
        def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
            calls.append("refit")
            super().refit(weights, version)

        def sleep(self) -> None:
            calls.append("sleep")

    monkeypatch.setattr(azr_nemo.rollout, "make_rollout", Recorded)
    engine = build_engine(run_config(), model_dir())
    assert engine is not None
    actor = engine.worker.actor
    for name in ("update", "supervise"):

        def told(*arguments: Any, train: Callable[..., Any] = getattr(actor, name), name: str = name) -> Any:
            calls.append(name)
            return train(*arguments)

        monkeypatch.setattr(actor, name, told)
    engine.update(training_batch())
    engine.supervise([Example((1, 2), (3, 256))])
    engine.refit()
    engine.close()
    assert calls == ["refit", "sleep", "update", "refit", "sleep", "supervise", "refit"]
