import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import run_config, training_batch
from torch import Tensor

from azr_nemo.conversion.convert import convert
from azr_nemo.errors import UserError
from azr_nemo.megatron import sharded_safetensors
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint
from azr_nemo.megatron.weight_stream import export_weights

MakeActor = Callable[..., Actor]
ModelDir = Callable[..., Path]


def weights(actor: Actor) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in export_weights(actor.model, actor.hf_config)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture
def saved(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path) -> Path:
    actor = make_actor()
    actor.update(training_batch())
    folder = tmp_path / "saved"
    folder.mkdir()
    save_checkpoint(actor, model_dir(), folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama-tied", "qwen2-untied"])
def test_a_resumed_run_continues_bit_for_bit(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path, dtype: str, family: str) -> None:
    config = run_config(dtype)
    config.optim.lr_warmup_steps = 5
    actor = make_actor(family, config)
    actor.update(training_batch(seed=1))
    actor.update(training_batch(seed=2))
    save_checkpoint(actor, model_dir(family), tmp_path)
    at_save = weights(actor)
    metrics = actor.update(training_batch(seed=3))

    resumed = make_actor(family, config)
    load_checkpoint(resumed, tmp_path)
    assert same(weights(resumed), at_save)
    again = resumed.update(training_batch(seed=3))
    assert {name: value for name, value in again.items() if name != "update_s"} == {n: v for n, v in metrics.items() if n != "update_s"}
    assert same(weights(resumed), weights(actor))


def test_equal_states_are_equal_files(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path) -> None:
    actor = make_actor()
    actor.update(training_batch())
    written = set()
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_checkpoint(actor, model_dir(), folder)
        written.add((folder / "weights" / "slices-00000.safetensors").read_bytes())
    assert len(written) == 1


def test_a_checkpoint_before_the_first_step_loads(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path) -> None:
    actor, other = make_actor("llama-tied", run_config("bfloat16")), make_actor("llama-tied", run_config("bfloat16"))
    save_checkpoint(actor, model_dir(), tmp_path)
    other.update(training_batch())
    load_checkpoint(other, tmp_path)
    actor.update(training_batch(seed=1))
    other.update(training_batch(seed=1))
    assert same(weights(actor), weights(other))


def test_converted_weights_can_be_trained_on(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path) -> None:
    convert(model_dir(), tmp_path / "checkpoint", "megatron")
    actor, fresh = make_actor(), make_actor()
    actor.update(training_batch())
    load_checkpoint(actor, tmp_path / "checkpoint")
    actor.update(training_batch())
    fresh.update(training_batch())
    assert same(weights(actor), weights(fresh))


def test_a_checkpoint_holds_no_pickle_but_torchs_guarded_one(saved: Path) -> None:
    files = {path.name for path in (saved / "weights").iterdir()}
    assert files == {"slices-00000.safetensors", "common.pt", "metadata.json"}
    torch.load(saved / "weights" / "common.pt", weights_only=True)


def test_code_hidden_in_a_checkpoint_is_not_run(saved: Path, make_actor: MakeActor, tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {trace}",)

    common = saved / "weights" / "common.pt"
    with zipfile.ZipFile(common) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(common, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickle.dumps(Attack()) if name.endswith("data.pkl") else content)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_checkpoint(make_actor(), saved)
    assert not trace.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda weights: cut(weights / "slices-00000.safetensors"),
        lambda weights: cut(weights / "common.pt"),
        lambda weights: (weights / "slices-00000.safetensors").unlink(),
        lambda weights: (weights / "common.pt").unlink(),
        lambda weights: (weights / "metadata.json").unlink(),
        lambda weights: (weights / "metadata.json").write_text("{"),
        lambda weights: (weights / "metadata.json").write_text('{"sharded_backend": "torch_dist"}'),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(saved: Path, make_actor: MakeActor, damage: Callable[[Path], object]) -> None:
    damage(saved / "weights")
    with pytest.raises(UserError, match=f"the checkpoint {saved} cannot be loaded"):
        load_checkpoint(make_actor(), saved)


def test_a_checkpoint_of_another_model_or_dtype_is_refused(saved: Path, make_actor: MakeActor) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        load_checkpoint(make_actor("qwen2-tied"), saved)
    with pytest.raises(UserError, match=r"float32, not torch\.bfloat16"):
        load_checkpoint(make_actor("llama-tied", run_config("bfloat16")), saved)


def test_an_unfinished_or_damaged_checkpoint_is_not_converted(saved: Path, tmp_path: Path) -> None:
    cut(saved / "weights" / "slices-00000.safetensors")
    with pytest.raises(UserError, match="cannot be loaded"):
        convert(saved, tmp_path / "hf", "hf")
    assert not (tmp_path / "hf").exists()


def test_a_full_disk_is_named(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharded_safetensors, "save_file", full)
    with pytest.raises(UserError, match=f"the checkpoint {tmp_path} cannot be written: .*No space left"):
        save_checkpoint(make_actor(), model_dir(), tmp_path)
    assert not (tmp_path / "weights" / "metadata.json").exists()
