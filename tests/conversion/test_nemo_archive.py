"""NeMo's weights as Megatron and NeMo write them, and what is wrong with some."""

import gzip
import json
import os
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conversion_models import edit_json, same_weights, save_as_megatron_does, weights
from torch.distributed import checkpoint as torch_checkpoint
from transformers import AutoModelForCausalLM

from azr_nemo.conversion.archive import open_archive
from azr_nemo.conversion.convert import convert
from azr_nemo.conversion.torch_dist import open_torch_dist
from azr_nemo.conversion.zarr import open_zarr
from azr_nemo.errors import UserError

Source = Callable[..., Path]
QKV = "model.decoder.layers.self_attention.linear_qkv.weight"


@pytest.fixture(scope="module")
def from_megatron(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What megatron-core's torch_dist writer makes of a tiny Qwen2, in NeMo's folder."""
    folder = tmp_path_factory.mktemp("saved") / "nemo"
    save_as_megatron_does(source(), folder)
    return folder


@pytest.mark.slow  # megatron-core writes them in processes of its own
def test_torch_dist_weights_become_the_hugging_face_model_that_they_were(source: Source, from_megatron: Path, tmp_path: Path) -> None:
    convert(from_megatron, tmp_path / "back", "hf", verified=True)
    assert same_weights(source(), tmp_path / "back")
    # The tokenizer is where model_config.yaml says NeMo loads it from.
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == (source() / "tokenizer.json").read_bytes()


def test_a_packed_file_of_torch_dist_weights_is_read_where_it_lies(source: Source, from_megatron: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.nemo", "w:") as tar:
        tar.add(from_megatron, arcname=".")
    convert(tmp_path / "model.nemo", tmp_path / "back", "hf")
    assert same_weights(source(), tmp_path / "back")


def test_weights_without_a_configuration_take_that_of_a_like_model(source: Source, from_megatron: Path, tmp_path: Path) -> None:
    bare = tmp_path / "step=3-last"
    shutil.copytree(from_megatron / "model_weights", bare)
    with pytest.raises(UserError, match=r"has no model_config\.yaml: say with --like"):
        convert(bare, tmp_path / "back", "hf")
    convert(bare, tmp_path / "back", "hf", like=source())
    assert same_weights(source(), tmp_path / "back")
    with pytest.raises(UserError, match=r"holds a tensor model\.output_layer\.weight, which the model .* does not have"):
        convert(bare, tmp_path / "wrong", "hf", like=source("qwen2-tied"))


def test_a_like_model_must_be_the_same_model(source: Source, nemo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"says family=llama, but .* says qwen2: they are different models"):
        convert(nemo_folder, tmp_path / "back", "hf", like=source("llama-3.1"))


def rewrite(folder: Path, key: str, change: Callable[[torch.Tensor], torch.Tensor], new_key: str | None = None) -> None:
    """Stores a zarr tensor again, changed, in one chunk."""
    tensor = open_zarr(open_archive(folder), "model_weights")[key].read().clone()
    shutil.rmtree(folder / "model_weights" / key)
    target, tensor = folder / "model_weights" / (new_key or key), change(tensor).contiguous()
    target.mkdir()
    header = {"shape": list(tensor.shape), "chunks": list(tensor.shape), "dtype": "<f4", "compressor": None, "filters": None, "order": "C"}
    (target / ".zarray").write_text(json.dumps({**header, "fill_value": None, "zarr_format": 2}))
    (target / ".".join("0" * tensor.dim())).write_bytes(tensor.numpy().tobytes())


def test_the_rows_that_pad_a_vocabulary_are_left_out(source: Source, nemo_folder: Path, tmp_path: Path) -> None:
    for key in ("model.embedding.word_embeddings.weight", "model.output_layer.weight"):
        rewrite(nemo_folder, key, lambda full: torch.cat([full, full[:127]]))
    convert(nemo_folder, tmp_path / "back", "hf")
    assert same_weights(source(), tmp_path / "back")


def test_one_chunk_may_hold_all_layers_and_a_layer_may_have_a_tensor_of_its_own(source: Source, nemo_folder: Path, tmp_path: Path) -> None:
    rewrite(nemo_folder, QKV, lambda full: full)
    key = "model.decoder.layers.mlp.linear_fc2.weight"
    for layer in range(4):
        shutil.copytree(nemo_folder / "model_weights" / key, nemo_folder / "model_weights" / "kept")
        rewrite(nemo_folder, key, lambda full, layer=layer: full[layer], key.replace("layers.", f"layers.{layer}."))
        (nemo_folder / "model_weights" / "kept").rename(nemo_folder / "model_weights" / key)
    shutil.rmtree(nemo_folder / "model_weights" / key)
    norm = "model.decoder.layers.self_attention.linear_qkv.layer_norm_weight"
    rewrite(nemo_folder, norm, lambda full: full, "model.decoder.layers.input_layernorm.weight")
    convert(nemo_folder, tmp_path / "back", "hf")
    assert same_weights(source(), tmp_path / "back")


def test_a_checkpoint_of_the_engine_aligner_is_found_beside_its_state(source: Source, nemo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "step_000010").mkdir()
    (tmp_path / "step_000010" / "trainer.json").write_text("{}")
    nemo_folder.rename(tmp_path / "step_000010" / "nemo")
    convert(tmp_path / "step_000010", tmp_path / "back", "hf")
    assert same_weights(source(), tmp_path / "back")


def test_the_optimizers_tensors_are_left_alone(source: Source, nemo_folder: Path, tmp_path: Path) -> None:
    (nemo_folder / "model_weights" / f"optimizer.state.exp_avg.{QKV}").mkdir()
    (nemo_folder / "model_weights" / f"optimizer.state.exp_avg.{QKV}" / ".zarray").write_text("not for us")
    convert(nemo_folder, tmp_path / "back", "hf")
    assert same_weights(source(), tmp_path / "back")


def test_the_configuration_comes_from_model_config_yaml_where_there_is_no_config_json(
    source: Source, nemo_folder: Path, tmp_path: Path
) -> None:
    shutil.rmtree(nemo_folder / "huggingface")
    # As in NeMo's own files: a value that points to another one.
    edit_yaml(nemo_folder, "max_position_embeddings: 256", "max_position_embeddings: ${.encoder_seq_length}")
    convert(nemo_folder, tmp_path / "back", "hf", verified=True)
    assert same_weights(source(), tmp_path / "back")
    tokens = torch.arange(9)[None]
    theirs, ours = (AutoModelForCausalLM.from_pretrained(folder)(tokens).logits for folder in (source(), tmp_path / "back"))
    assert torch.equal(theirs, ours)
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (written["max_position_embeddings"], written["architectures"]) == (256, ["Qwen2ForCausalLM"])
    assert (written["rope_theta"], written["torch_dtype"]) == (10000.0, "float32")


def test_the_rope_scaling_of_llama_3_1_is_taken_from_model_config_yaml(source: Source, tmp_path: Path) -> None:
    convert(source("llama-3.1"), tmp_path / "nemo", "nemo")
    shutil.rmtree(tmp_path / "nemo" / "huggingface")
    convert(tmp_path / "nemo", tmp_path / "back", "hf", verified=True)
    tokens = torch.arange(9)[None]
    theirs, ours = (AutoModelForCausalLM.from_pretrained(folder)(tokens).logits for folder in (source("llama-3.1"), tmp_path / "back"))
    assert torch.equal(theirs, ours)
    # Under the names that transformers 4 knows, too.
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"]["factor"], written["rope_scaling"]["rope_type"]) == (500000.0, 8.0, "llama3")


def edit_yaml(folder: Path, old: str, new: str) -> None:
    path = folder / "model_config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: edit_yaml(f, "activation: fast-swiglu", "activation: gelu"), "says activation=gelu, which is not supported: only"),
        (lambda f: edit_yaml(f, "num_layers: 4", "num_layers: 5"), "says layers=4, but .* says 5: they are different models"),
        (lambda f: edit_yaml(f, "hidden_size: 32\n", "\n"), "has no hidden_size: expected the configuration of a MegatronGPTModel"),
        (lambda f: edit_yaml(f, "num_layers: 4", "num_layers: ${nowhere}"), "its num_layers cannot be read"),
        (lambda f: (f / "model_config.yaml").write_text("a: [1"), "its model_config.yaml cannot be read"),
        (lambda f: (f / "model_config.yaml").write_text("- 1"), "its model_config.yaml cannot be read: it is no mapping"),
        (lambda f: edit_json(f / "huggingface/config.json", model_type="gpt2"), "architecture 'gpt2' is not supported"),
        (lambda f: (f / "huggingface/config.json").write_text("{"), "its huggingface/config.json cannot be read"),
        (lambda f: (f / "model_weights/metadata.json").unlink(), "has no model_weights/metadata.json: expected weights that NeMo saved"),
        (lambda f: (f / "model_weights/metadata.json").write_text("[]"), "its model_weights/metadata.json is damaged"),
        (lambda f: edit_json(f / "model_weights/metadata.json", sharded_backend="hdf"), "stored as hdf: expected torch_dist or zarr"),
        (lambda f: shutil.rmtree(f / "model_weights" / QKV), f"has no tensor {QKV}: it does not hold the model"),
        (lambda f: (f / "model_weights" / QKV / "2.0.0").unlink(), r"is damaged: it has no model_weights/.*qkv\.weight/2\.0\.0"),
        (lambda f: (f / "model_weights" / QKV / "2.0.0").write_bytes(b"1234"), r"is damaged: .*/2\.0\.0 has 4 bytes instead of 8192"),
        (lambda f: (f / "model_weights" / QKV / ".zarray").write_text("{"), "has a damaged .zarray"),
        (
            lambda f: edit_json(f / "model_weights" / QKV / ".zarray", compressor={"id": "blosc"}),
            r"is stored as <f4, compressor \{'id': 'blosc'\}, order C: expected .* uncompressed",
        ),
        (lambda f: edit_json(f / "model_weights" / QKV / ".zarray", dtype="<f8"), "is stored as <f8"),
        (lambda f: rewrite(f, QKV, lambda full: full[:3]), "has 3 layers, but its configuration says 4"),
        (lambda f: rewrite(f, QKV, lambda full: full[:, :, :30]), r"has shape \(64, 30\), but its configuration implies \(64, 32\)"),
        (
            lambda f: rewrite(f, "model.decoder.final_layernorm.weight", lambda full: full, "model.decoder.final_layernorm.bias"),
            r"tensor model\.decoder\.final_layernorm\.(bias|weight)",
        ),
        (
            lambda f: shutil.rmtree(f / "model_weights/model.embedding.word_embeddings.weight"),
            "has no tensor model.embedding.word_embeddings.weight: it does not hold a language model",
        ),
    ],
)
def test_what_is_wrong_with_nemos_folder_is_told_in_a_sentence(
    nemo_folder: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(nemo_folder)
    with pytest.raises(UserError, match=message) as refused:
        convert(nemo_folder, tmp_path / "back", "hf")
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["nemo"]


def test_a_damaged_or_compressed_nemo_file_is_refused(source: Source, tmp_path: Path) -> None:
    whole = tmp_path / "whole.nemo"
    convert(source(), whole, "nemo")
    compressed, cut, other = tmp_path / "compressed.nemo", tmp_path / "cut.nemo", tmp_path / "other.nemo"
    compressed.write_bytes(gzip.compress(whole.read_bytes()))
    with pytest.raises(UserError, match="expected an uncompressed tar; unpack a compressed one into a folder"):
        convert(compressed, tmp_path / "back", "hf")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut\.nemo"):
        convert(cut, tmp_path / "back", "hf")
    other.write_bytes(b"not a tar at all" * 100)
    with pytest.raises(UserError, match=r"cannot be read as a \.nemo file"):
        convert(other, tmp_path / "back", "hf")
    assert not (tmp_path / "back").exists()


def test_a_model_that_nemo_would_compute_differently_is_refused_or_kept_from_it(source: Source, tmp_path: Path) -> None:
    llama = tmp_path / "llama"
    shutil.copytree(source("llama-3.1"), llama)
    config = json.loads((llama / "config.json").read_text())
    edit_json(llama / "config.json", rope_parameters=config["rope_parameters"] | {"factor": 32.0})
    with pytest.raises(UserError, match=r"rope scaling has \{'factor': 32\.0\}, but NeMo knows only that of Llama 3\.1"):
        convert(llama, tmp_path / "a.nemo", "nemo")
    assert not (tmp_path / "a.nemo").exists()
    # NeMo 2.1 refuses this name of a layer specification, instead of leaving out the weights that normalise queries and keys.
    convert(source("qwen3"), tmp_path / "qwen3", "nemo")
    assert "\nname: te_gpt_qk_layernorm\n" in (tmp_path / "qwen3" / "model_config.yaml").read_text()


def test_code_hidden_in_an_index_is_not_run(from_megatron: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {trace}",)

    folder = tmp_path / "attack"
    shutil.copytree(from_megatron, folder)
    index = folder / "model_weights" / ".metadata"
    index.write_bytes(pickle.dumps({"storage_data": Attack()}))
    with pytest.raises(UserError, match=r"its index model_weights/\.metadata cannot be read: it names posix\.system"):
        convert(folder, tmp_path / "back", "hf")
    # Not even a function of torch is reached: the names on the list give records that do nothing.
    index.write_bytes(b"ctorch\nload\n(S'model.nemo'\ntR.")
    with pytest.raises(UserError, match=r"it names torch\.load"):
        convert(folder, tmp_path / "back", "hf")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"\x80\x04N.", pickle.dumps({"a": 1}), b"\x80\x04]\x94h\x05."])
def test_a_damaged_index_is_told_in_a_sentence(from_megatron: Path, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(from_megatron, folder)
    (folder / "model_weights" / ".metadata").write_bytes(content)
    with pytest.raises(UserError, match=r"its index model_weights/\.metadata cannot be read"):
        convert(folder, tmp_path / "back", "hf")


def test_a_damaged_or_missing_distcp_file_is_told_in_a_sentence(from_megatron: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(from_megatron, folder)
    files = sorted((folder / "model_weights").glob("*.distcp"))
    for file in files:
        file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"is damaged: a tensor in model_weights/__0_\d\.distcp cannot be read"):
        convert(folder, tmp_path / "back", "hf")
    for file in files:
        file.unlink()
    with pytest.raises(UserError, match=r"is damaged: it has no model_weights/__0_\d\.distcp"):
        convert(folder, tmp_path / "back", "hf")


def test_an_index_of_plain_torch_is_read_too(tmp_path: Path) -> None:
    tensors = {
        "model.a": torch.randn(3, 4).to(torch.bfloat16),
        "model.b": torch.randn(5),
        "optimizer.state.exp_avg.model.b": torch.randn(5),
    }
    torch_checkpoint.save(tensors, checkpoint_id=tmp_path / "saved")
    found = open_torch_dist(open_archive(tmp_path / "saved"), "")
    assert found.keys() == {"model.a", "model.b"}
    assert all(torch.equal(found[key].read(), tensors[key]) for key in found)
    assert torch.equal(found["model.a"].read(2), tensors["model.a"][2])


def test_nothing_of_the_source_is_changed(source: Source, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in source().iterdir()}
    convert(source(), tmp_path / "a.nemo", "nemo", verified=True)
    assert {path: path.read_bytes() for path in source().iterdir()} == before
    assert weights(source())
    assert re.search(r"tokenizer:\n  library: huggingface\n  type: ", read_from_tar(tmp_path / "a.nemo", "./model_config.yaml"))


def read_from_tar(path: Path, name: str) -> str:
    with tarfile.open(path, "r:") as tar:
        member = tar.extractfile(name)
        assert member is not None
        return member.read().decode()
