"""Weights that are not finite are found wherever they are, and finite ones are never taken for such."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import EchoRollout, run_config, training_batch

import azr_nemo.rollout
from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint, take_snapshot
from azr_nemo.megatron.controller import MegatronEngine, build_engine
from azr_nemo.megatron.finite_weights import Diverged, Growth, all_finite, require_finite
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.selfplay.exchange import Example

MakeActor = Callable[..., Actor]
ModelDir = Callable[..., Path]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.sampled_from([math.nan, math.inf, -math.inf, None]),
    st.floats(0, 1, exclude_max=True),
)
def test_one_element_is_enough_wherever_it_is(dtype: torch.dtype, sizes: list[int], wrong: float | None, place: float) -> None:
    tensors = [torch.ones(size, dtype=dtype) for size in sizes]
    if wrong is not None:
        spoilt = tensors[int(place * len(tensors))]
        spoilt[int(place * len(spoilt))] = wrong
    assert all_finite(tensors) is (wrong is None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_that_overflows_is_no_infinity(dtype: torch.dtype) -> None:
    assert all_finite([torch.full((5,), torch.finfo(dtype).max, dtype=dtype)])
    assert all_finite([torch.full((5,), torch.finfo(dtype).max, dtype=dtype), -torch.full((5,), torch.finfo(dtype).max, dtype=dtype)])


def test_opposite_infinities_and_eight_bit_floats_are_seen() -> None:
    assert not all_finite([torch.tensor([math.inf, -math.inf])])
    assert all_finite([torch.ones(3).to(torch.float8_e4m3fn)])
    assert not all_finite([torch.tensor([math.nan]).to(torch.float8_e4m3fn)])
    assert all_finite([])


def test_a_tensor_that_is_not_finite_is_named() -> None:
    assert require_finite(torch.ones(2), "a", "b").sum() == 2
    with pytest.raises(UserError, match=r"the tensor model\.norm\.weight of /m is not finite"):
        require_finite(torch.tensor([1.0, math.nan]), "model.norm.weight", Path("/m"))


@pytest.fixture
def engine(model_dir: ModelDir, monkeypatch: pytest.MonkeyPatch) -> MegatronEngine:
    monkeypatch.setattr(azr_nemo.rollout, "make_rollout", EchoRollout, raising=False)
    engine = build_engine(run_config(), model_dir())
    assert engine is not None
    return engine


def test_an_update_that_spoils_the_weights_raises_and_nothing_is_refitted(engine: MegatronEngine) -> None:
    assert "growth" not in engine.update(training_batch())
    rollout = engine.worker.rollout
    assert isinstance(rollout, EchoRollout)
    before = rollout.refits
    for group in engine.worker.actor.optimizer.param_groups:
        group["max_lr"] = 1e38
    with pytest.raises(Diverged, match=r"no longer finite after the update with optim\.lr=1e\+38, .*: lower optim\.lr$"):
        engine.update(training_batch(seed=1))
    assert rollout.refits == before


def test_a_warm_start_that_diverges_names_its_own_rate(engine: MegatronEngine) -> None:
    with pytest.raises(Diverged, match=r"no longer finite after the update with warmup\.lr=1e\+30, .*: lower warmup\.lr$"):
        engine.supervise([Example((1, 2), (3, 4))], 1e30)


def test_weights_that_one_update_made_many_times_as_large_count_as_lost(engine: MegatronEngine) -> None:
    """They are finite, and would replace the last good checkpoint."""
    with pytest.raises(Diverged, match=r"the weights are \S+ times as large after the update with warmup\.lr=100, .*: lower warmup\.lr$"):
        engine.supervise([Example((1, 2), (3, 4))], 100.0)


def test_growth_is_of_the_norm_since_the_time_before() -> None:
    weight = torch.nn.Parameter(torch.full((4, 4), 2.0))
    growth = Growth([weight])
    for factor in (1.0, 3.0, 0.5):
        weight.data.mul_(factor)
        assert growth.update() == pytest.approx(factor)
    for wrong in (math.nan, math.inf, 1e30):
        weight.data[0, 0] = wrong
        assert growth.update() == math.inf


def test_neither_weights_nor_moments_that_are_not_finite_are_saved(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path) -> None:
    actor = make_actor()
    actor.update(training_batch())
    moments = next(iter(actor.optimizer.optimizer.state.values()))["exp_avg_sq"]
    moments.view(-1)[0] = math.inf
    with pytest.raises(UserError, match=r"the tensor optimizer\.state\.exp_avg_sq\..* of the trainer's state is not finite"):
        take_snapshot(actor, model_dir(), copy=True).write(tmp_path / "saved")


def test_a_checkpoint_from_before_whose_weights_are_not_finite_is_refused(
    make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = make_actor()
    next(actor.model.parameters()).data.view(-1)[-1] = math.nan
    monkeypatch.setattr("azr_nemo.megatron.sharded_safetensors.require_finite", lambda *_: None)  # as an earlier version did
    save_checkpoint(actor, model_dir(), tmp_path)
    with pytest.raises(UserError, match=f"the checkpoint {tmp_path} cannot be loaded: its weights are not finite"):
        load_checkpoint(make_actor(), tmp_path)


def test_a_resumed_run_learns_at_the_rate_that_its_settings_say(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path) -> None:
    """The way back from a run that diverged; the moments and the count of steps are the checkpoint's."""
    actor = make_actor()
    actor.update(training_batch())
    save_checkpoint(actor, model_dir(), tmp_path)
    slower = run_config()
    slower.optim.lr, slower.optim.weight_decay = 1e-4, 0.5
    resumed = make_actor(config=slower)
    load_checkpoint(resumed, tmp_path)
    before = {name: tensor.clone() for name, tensor in export_weights(resumed.model, resumed.hf_config)}
    assert resumed.update(training_batch(seed=1))["lr"] == pytest.approx(1e-4)
    assert {group["weight_decay"] for group in resumed.optimizer.param_groups} == {0.0, 0.5}
    moved = max(float((tensor - before[name]).abs().max()) for name, tensor in export_weights(resumed.model, resumed.hf_config))
    assert 0 < moved < 1e-3, "the old rate would move a weight by about 1e-2"
    assert {int(state["step"]) for state in resumed.optimizer.optimizer.state.values()} == {2}
