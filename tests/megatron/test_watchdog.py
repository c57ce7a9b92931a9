"""Who waits and who hangs, as the watchdog judges it (the whole job: tests/parity/test_lost_rank.py)."""

import sys
from types import FrameType

import pytest
import torch.distributed as dist
from megatron.core import parallel_state

from azr_nemo.megatron import distributed
from azr_nemo.megatron.platform import Platform
from azr_nemo.megatron.watchdog import State, Watchdog, _stands_in


def standing_in(module: str) -> FrameType:
    """A frame of a function of that module."""
    scope = {"__name__": module, "frame": sys._getframe}
    exec("def stand():\n    return frame()", scope)
    return scope["stand"]()  # type: ignore[operator]


def watchdog(on_device: bool) -> Watchdog:
    """That of rank 0, idle."""
    return Watchdog(dist.HashStore(), 0, 1, 100.0, on_device)


@pytest.mark.parametrize(
    "module", ["megatron.core.optimizer.clip_grads", "torch.utils.checkpoint", "transformer_engine.pytorch.module.linear"]
)
def test_on_a_gpu_a_rank_that_stands_where_the_device_is_needed_waits(module: str) -> None:
    frame = standing_in(module)
    assert _stands_in(frame, watchdog(on_device=True)._waits_in)
    assert not _stands_in(frame, watchdog(on_device=False)._waits_in)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_rank_in_work_of_its_own_does_not_wait_wherever_it_computes(on_device: bool) -> None:
    waits_in = watchdog(on_device)._waits_in
    frame = standing_in("azr_nemo.selfplay.step")
    assert not any(_stands_in(other, waits_in) for other in (frame, standing_in("torchlike.core")))
    assert _stands_in(standing_in("torch.distributed.distributed_c10d"), waits_in)


def test_the_rank_that_hangs_is_named_and_not_those_that_wait_for_it_on_their_devices() -> None:
    states = {0: State("update", 3, 5, waiting=True), 1: State("update", 3, 4, waiting=False)}
    sentence = watchdog(on_device=True)._find(states, {1: 0.0}, {0: 99.0, 1: 99.0}, 0.0)
    assert sentence is not None
    assert sentence.startswith("rank 1 made no progress in the phase `update` for 85 s")


def test_megatrons_groups_wait_as_long_as_the_jobs_own(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, float] = {}
    initialize = parallel_state.initialize_model_parallel
    monkeypatch.setattr(parallel_state, "initialize_model_parallel", lambda *x, **k: given.update(k) or initialize(*x, **k))
    parallel_state.destroy_model_parallel()
    distributed.start(platform, 1, 1, watchdog_s=100.0)
    assert given["distributed_timeout_minutes"] == 7  # 400 s and more; a half-hour of its own would end a long generation blindly
