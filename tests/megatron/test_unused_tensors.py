"""No tensor in a model's files is left out in silence: what is a copy of another is compared, anything else is refused."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import run_config
from torch import Tensor

from azr_nemo.conversion.convert import convert
from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.architecture import inverse_frequencies
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint
from azr_nemo.megatron.huggingface import open_hf, read_config
from azr_nemo.megatron.platform import Platform

ModelDir = Callable[..., Path]
Change = Callable[[dict[str, Tensor]], object]
LAYER = "model.layers.1.self_attn."
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def with_tensors(model_dir: Path, folder: Path, change: Change) -> Path:
    """A copy whose tensors are changed."""
    shutil.copytree(model_dir, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def train(hf: Path, platform: Platform) -> None:
    Actor(run_config(), read_config(hf), platform, hf)


def evaluate(hf: Path, platform: Platform) -> None:
    with open_hf(hf, read_config(hf)) as stream:
        assert HEAD not in dict(stream)


def to_megatron(hf: Path, platform: Platform) -> None:
    convert(hf, hf.with_name("out"), "megatron")


USERS = [train, evaluate, to_megatron]
User = Callable[[Path, Platform], None]


@pytest.mark.parametrize("use", USERS)
def test_a_tied_head_that_is_the_embedding_is_dropped(use: User, model_dir: ModelDir, tmp_path: Path, platform: Platform) -> None:
    use(with_tensors(model_dir(), tmp_path / "hf", lambda t: t.update({HEAD: t[EMBEDDING].clone()})), platform)


@pytest.mark.parametrize("use", USERS)
@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update({HEAD: t[EMBEDDING] + 1e-3}),
        lambda t: t.update({HEAD: t[EMBEDDING][:-1]}),
        lambda t: t.update({HEAD: t[EMBEDDING].bfloat16()}),
    ],
)
def test_a_trained_head_is_not_taken_for_the_embedding(
    use: User, change: Change, model_dir: ModelDir, tmp_path: Path, platform: Platform
) -> None:
    hf = with_tensors(model_dir(), tmp_path / "hf", change)
    with pytest.raises(UserError, match=r'hf holds a lm_head\.weight that is not its .*: set "tie_word_embeddings": false in config\.json'):
        use(hf, platform)


def test_the_head_is_kept_once_the_configuration_says_so(model_dir: ModelDir, tmp_path: Path, platform: Platform) -> None:
    hf = with_tensors(model_dir(), tmp_path / "hf", lambda t: t.update({HEAD: t[EMBEDDING] + 1}))
    settings = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": False}))
    train(hf, platform)
    convert(hf, tmp_path / "checkpoint", "megatron")
    convert(tmp_path / "checkpoint", tmp_path / "back", "hf")
    assert torch.equal(load_file(tmp_path / "back" / "model.safetensors")[HEAD], load_file(hf / "model.safetensors")[HEAD])


@pytest.mark.parametrize("use", [train, to_megatron])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama-tied", LAYER + "q_proj.bias"),
        ("llama-tied", LAYER + "o_proj.bias"),
        ("llama-tied", "model.layers.1.mlp.down_proj.bias"),
        ("qwen2-tied", LAYER + "q_norm.weight"),
        ("llama-tied", "model.layers.4.input_layernorm.weight"),
        ("llama-tied", LAYER + "q_proj.lora_A.weight"),
        ("llama-tied", "model.layers.1.mlp.gate_proj.weight_scale_inv"),
        ("llama-tied", "score.weight"),
    ],
)
def test_a_tensor_that_the_configuration_does_not_know_is_refused(
    use: User, family: str, name: str, model_dir: ModelDir, tmp_path: Path, platform: Platform
) -> None:
    hf = with_tensors(model_dir(family), tmp_path / "hf", lambda t: t.update({name: torch.ones(3)}))
    with pytest.raises(UserError, match=f"holds a tensor {name}, which the model that its config.json describes does not have"):
        use(hf, platform)


@pytest.mark.parametrize("use", USERS)
@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_refused(use: User, wrong: float, model_dir: ModelDir, tmp_path: Path, platform: Platform) -> None:
    name = LAYER + "v_proj.weight"
    hf = with_tensors(model_dir(), tmp_path / "hf", lambda t: t[name].view(-1)[5:6].fill_(wrong))
    with pytest.raises(UserError, match=f"the tensor {name} of {hf} is not finite"):
        use(hf, platform)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rotary_frequencies_are_dropped_when_they_are_the_configurations(
    dtype: torch.dtype, model_dir: ModelDir, tmp_path: Path, platform: Platform
) -> None:
    frequencies = inverse_frequencies(read_config(model_dir()))
    hf = with_tensors(model_dir(), tmp_path / "hf", lambda t: t.update({LAYER + "rotary_emb.inv_freq": frequencies.to(dtype)}))
    train(hf, platform)
    wrong = with_tensors(model_dir(), tmp_path / "wrong", lambda t: t.update({LAYER + "rotary_emb.inv_freq": frequencies.to(dtype) / 2}))
    with pytest.raises(UserError, match=r"rotary frequencies, .*inv_freq, that are not those of its config\.json: set rope_theta"):
        train(wrong, platform)


def test_a_file_that_would_not_be_read_is_refused(model_dir: ModelDir, tmp_path: Path, platform: Platform) -> None:
    hf = Path(shutil.copytree(model_dir(), tmp_path / "hf"))
    save_file({"a": torch.ones(1)}, hf / "adapter_model.safetensors")
    with pytest.raises(UserError, match="holds a tensor a, which"):
        train(hf, platform)
    names = load_file(hf / "model.safetensors")
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is not among the files of model\.safetensors\.index\.json"):
        train(hf, platform)
    (hf / "adapter_model.safetensors").rename(hf / "consolidated.safetensors")
    train(hf, platform)


def test_a_tensor_in_two_files_is_refused(model_dir: ModelDir, tmp_path: Path, platform: Platform) -> None:
    hf = Path(shutil.copytree(model_dir(), tmp_path / "hf"))
    save_file({"model.norm.weight": torch.ones(32)}, hf / "old.safetensors")
    with pytest.raises(UserError, match=r"the tensor model\.norm\.weight is both in .*model\.safetensors and in old\.safetensors"):
        train(hf, platform)


def test_a_checkpoint_with_a_tensor_too_many_is_not_resumed(make_actor: Callable[..., Actor], model_dir: ModelDir, tmp_path: Path) -> None:
    save_checkpoint(make_actor("qwen2-untied"), model_dir("qwen2-untied"), tmp_path)
    with pytest.raises(UserError, match=r"it has a tensor output_layer\.weight, which this model does not have"):
        load_checkpoint(make_actor("qwen2-tied"), tmp_path)
