"""The distributed optimizer's state is written as each rank has it, and comes back exactly at any layout."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import fused_adam
import megatron.core.optimizer as optimizers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.optimizer import distrib_optimizer
from run_server import ranks
from sharded_optimizer_job import LAYOUTS
from tiny_models import run_config, training_batch
from torch import Tensor

import azr_nemo.megatron.optimizer as ours
from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint, take_snapshot
from azr_nemo.megatron.slabs import boxes
from azr_nemo.settings.schema import RunConfig

JOB = Path(__file__).parent / "sharded_optimizer_job.py"
FAMILIES = ("llama-tied", "qwen2-untied")
MakeActor = Callable[..., Actor]
ModelDir = Callable[..., Path]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megatron with the stand-in for TransformerEngine's FusedAdam."""
    for module, names in (
        (optimizers, ("Adam", "USING_PYTORCH_OPTIMIZER")),
        (distrib_optimizer, ("Adam", "HAVE_APEX_OR_TE", "USING_TE_OPTIMIZER")),
        (ours, ("find_spec",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    fused_adam.install()


def sharded(dtype: str = "bfloat16") -> RunConfig:
    config = run_config(dtype, distributed_optimizer=True)
    config.optim.eps = 1e-3
    return config


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), ends=st.tuples(st.integers(0, 125), st.integers(0, 125)))
def test_the_boxes_of_a_flat_range_hold_its_elements_in_their_order(shape: tuple[int, ...], ends: tuple[int, int]) -> None:
    elements = torch.arange(math.prod(shape))
    start, end = (min(number, elements.numel()) for number in sorted(ends))
    whole = elements.view(shape)
    found = [whole[tuple(slice(at, at + n) for at, n in zip(*box, strict=True))].flatten() for box in boxes(shape, start, end)]
    assert torch.equal(torch.cat([*found, elements[:0]]), elements[start:end])
    assert len(found) <= 2 * len(shape) - 1


def held(actor: Actor, model_dir: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint whole, whatever boxes it is in."""
    slices = take_snapshot(actor, model_dir, copy=True).slices
    found: dict[str, Tensor] = {}
    for name, part in json.loads(slices.layout)["slices"].items():
        tensor = slices.tensors[name]
        whole = found.setdefault(part["key"], torch.full(part["shape"], math.nan, dtype=tensor.dtype))
        whole[tuple(slice(at, at + n) for at, n in zip(part["offset"], tensor.shape, strict=True))] = tensor
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama-tied", "qwen2-untied"])
def test_one_rank_resumes_bit_for_bit_and_writes_every_element_once(
    fused: None, make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path, dtype: str, family: str
) -> None:
    actor, models = make_actor(family, sharded(dtype)), model_dir(family)
    actor.update(training_batch(seed=1))
    before = held(actor, models)
    assert not any(tensor.isnan().any() for tensor in before.values())
    kinds = {"exp_avg", "exp_avg_sq", *(["fp32_param"] if dtype == "bfloat16" else [])}
    assert {name.split(".")[2] for name in before if name.startswith("optimizer.")} == kinds
    save_checkpoint(actor, models, tmp_path)
    actor.update(training_batch(seed=2))
    after = held(actor, models)
    back = make_actor(family, sharded(dtype))
    load_checkpoint(back, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in held(back, models).items())
    back.update(training_batch(seed=2))
    assert all(torch.equal(tensor, after[name]) for name, tensor in held(back, models).items())


def test_a_snapshot_holds_one_copy_and_without_one_the_trainers_own_memory(fused: None, make_actor: MakeActor, model_dir: ModelDir) -> None:
    actor = make_actor("llama-tied", sharded())
    actor.update(training_batch())
    state = {tensor.untyped_storage().data_ptr() for part in actor.optimizer.optimizer.state.values() for tensor in part.values()}
    own = take_snapshot(actor, model_dir(), copy=False).slices.tensors
    assert state <= {tensor.untyped_storage().data_ptr() for tensor in own.values()}
    copied = take_snapshot(actor, model_dir(), copy=True).slices.tensors
    assert not state & {tensor.untyped_storage().data_ptr() for tensor in copied.values()}
    parameters = sum(parameter.numel() for parameter in actor.model.parameters())
    assert sum(tensor.untyped_storage().nbytes() for tensor in copied.values()) == parameters * (2 + 4 + 4 + 4)


def test_a_plain_optimizers_checkpoint_is_refused_by_the_distributed_one_and_back(
    fused: None, make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path
) -> None:
    plain = run_config("bfloat16")
    for name, config in (("sharded", sharded()), ("plain", plain)):
        actor = make_actor("llama-tied", config)
        actor.update(training_batch())
        save_checkpoint(actor, model_dir(), tmp_path / name)
    with pytest.raises(UserError, match=r"sharded cannot be loaded: it was saved with engine\.distributed_optimizer=true: set it so"):
        load_checkpoint(make_actor("llama-tied", plain), tmp_path / "sharded")
    with pytest.raises(UserError, match=r"plain cannot be loaded: it was saved with engine\.distributed_optimizer=false: set it so"):
        load_checkpoint(make_actor("llama-tied", sharded()), tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("count", LAYOUTS)
def test_every_layout_resumes_exactly_and_takes_up_every_others_checkpoint(
    fused: None, make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path, count: int
) -> None:
    for ended in ranks(JOB, count, tmp_path, "bfloat16", *map(model_dir, FAMILIES)):
        assert ended.code == 0, ended.output
    for family in FAMILIES:
        out = tmp_path / model_dir(family).name
        saved = sorted(path.name for path in out.iterdir() if path.is_dir())
        assert len(saved) == len(LAYOUTS[count]) * (len(LAYOUTS[count]) + 1) // 2
        for name in saved:
            # What another layout took up and saved as it was is what was saved first.
            first, again = (make_actor(family, sharded()) for _ in range(2))
            load_checkpoint(first, out / name.partition("-by-")[0])
            load_checkpoint(again, out / name)
            expected = held(first, model_dir(family))
            assert all(torch.equal(tensor, expected[key]) for key, tensor in held(again, model_dir(family)).items()), name
