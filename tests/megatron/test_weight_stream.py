import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import CONFIGS
from transformers import AutoModelForCausalLM

from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.huggingface import open_weights, read_config, save_hf
from azr_nemo.megatron.weight_stream import export_weights


@pytest.mark.parametrize("family", CONFIGS)
def test_hugging_face_to_megatron_and_back_is_bit_identical(
    make_actor: Callable[..., Actor], model_dir: Callable[..., Path], family: str
) -> None:
    actor = make_actor(family)
    stored = load_file(model_dir(family) / "model.safetensors")
    stream = {name: tensor.clone() for name, tensor in export_weights(actor.model, actor.hf_config)}
    assert stream.keys() == stored.keys()
    for name, tensor in stored.items():
        assert torch.equal(stream[name], tensor), name


def test_a_large_model_is_written_in_shards_that_transformers_loads(
    make_actor: Callable[..., Actor], model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    actor = make_actor("qwen3")
    save_hf(export_weights(actor.model, actor.hf_config), actor.hf_config, model_dir("qwen3"), tmp_path / "out", shard_bytes=20_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    expected = AutoModelForCausalLM.from_pretrained(model_dir("qwen3")).state_dict()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    with open_weights(tmp_path / "out", actor.hf_config) as opened:
        assert torch.equal(opened.get("model.norm.weight"), expected["model.norm.weight"])


def test_nothing_is_left_behind_when_writing_fails(
    make_actor: Callable[..., Actor], model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    actor = make_actor()

    def broken():  # type: ignore[no-untyped-def]
        yield "model.norm.weight", torch.ones(3)
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write the model to .*No space left"):
        save_hf(broken(), actor.hf_config, model_dir(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="already exists"):
        save_hf([], actor.hf_config, model_dir(), tmp_path / "out")


def test_directories_that_are_no_model_are_refused(tmp_path: Path, model_dir: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        read_config(tmp_path)
    config = read_config(model_dir())
    with pytest.raises(UserError, match=r"no \*\.safetensors"), open_weights(tmp_path, config):
        pass
    (tmp_path / "model.safetensors").write_bytes((model_dir() / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"), open_weights(tmp_path, config):
        pass
