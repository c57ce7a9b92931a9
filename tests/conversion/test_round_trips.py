"""What goes through another format comes back bit for bit, and is the same model there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conversion_models import FAMILIES, edit_json, same_weights, weights
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from azr_nemo.conversion import verify
from azr_nemo.conversion.convert import convert
from azr_nemo.conversion.run_checkpoint import open_checkpoint
from azr_nemo.errors import UserError

Source = Callable[..., Path]


def largest_difference(printed: str) -> float:
    found = re.search(r"tensors equal in name, shape, dtype .* differ by at most (\S+) ", printed)
    assert found, printed
    return float(found[1])


@pytest.mark.parametrize("family", [family if family == "qwen3" else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES])
@pytest.mark.parametrize("through", ["megatron", "nemo"])
def test_a_model_comes_back_bit_for_bit_and_has_the_logits_of_transformers(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str, through: str
) -> None:
    hf, middle = source(family), tmp_path / ("model.nemo" if through == "nemo" else "checkpoint")
    for start, end, to in ((hf, middle, through), (middle, tmp_path / "back", "hf")):
        convert(start, end, to, verified=True)
        assert largest_difference(capsys.readouterr().out) < 1e-5
    assert same_weights(hf, tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {middle.name, "back"}


@pytest.mark.parametrize("through", ["megatron", "nemo"])
def test_bfloat16_stays_bfloat16(source: Source, tmp_path: Path, through: str) -> None:
    hf = source("qwen3", torch.bfloat16)
    convert(hf, tmp_path / "middle", through)
    convert(tmp_path / "middle", tmp_path / "back", "hf")
    assert same_weights(hf, tmp_path / "back")
    assert next(iter(weights(tmp_path / "back").values())).dtype == torch.bfloat16


def test_a_checkpoint_becomes_a_nemo_file_and_a_nemo_file_a_checkpoint(source: Source, checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "a.nemo", "nemo", verified=True)
    convert(tmp_path / "a.nemo", tmp_path / "again", "megatron", verified=True)
    convert(tmp_path / "again", tmp_path / "hf", "hf")
    assert same_weights(source(), tmp_path / "hf")


@pytest.mark.parametrize("through", ["megatron", "nemo"])
def test_tokenizer_chat_template_and_generation_settings_come_along(source: Source, tmp_path: Path, through: str) -> None:
    hf = source()
    convert(hf, tmp_path / "middle", through)
    convert(tmp_path / "middle", tmp_path / "back", "hf")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "back" / name).read_bytes() == (hf / name).read_bytes(), name
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads((hf / "config.json").read_text())
    assert AutoTokenizer.from_pretrained(tmp_path / "back").encode("f(1)") == AutoTokenizer.from_pretrained(hf).encode("f(1)")


@pytest.mark.parametrize("through", ["megatron", "nemo"])
def test_large_models_are_written_in_files_of_the_asked_for_size(source: Source, tmp_path: Path, through: str) -> None:
    convert(source(), tmp_path / "middle", through, shard_bytes=40_000)
    if through == "megatron":
        sizes = [file.stat().st_size for file in (tmp_path / "middle" / "weights").glob("slices-*")]
        assert len(sizes) > 3
        assert max(sizes) < 50_000
    convert(tmp_path / "middle", tmp_path / "back", "hf", shard_bytes=40_000)
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    assert same_weights(source(), tmp_path / "back")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights(source()).items())


def test_a_sharded_source_is_read_through_its_index(source: Source, tmp_path: Path) -> None:
    convert(source(), tmp_path / "middle", "megatron")
    convert(tmp_path / "middle", tmp_path / "shards", "hf", shard_bytes=40_000)
    convert(tmp_path / "shards", tmp_path / "again", "megatron")
    with open_checkpoint(tmp_path / "again") as (_, stream):
        found = {name: tensor.clone() for name, tensor in stream}
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(source()).items())


def test_equal_models_give_equal_nemo_files(source: Source, tmp_path: Path) -> None:
    for name in ("a.nemo", "b.nemo"):
        convert(source(), tmp_path / name, "nemo")
    assert (tmp_path / "a.nemo").read_bytes() == (tmp_path / "b.nemo").read_bytes()


def test_a_config_json_of_an_older_transformers_is_kept_as_it_is_written(source: Source, tmp_path: Path) -> None:
    hf = tmp_path / "hf"
    hf.mkdir()
    for file in source().iterdir():
        (hf / file.name).write_bytes(file.read_bytes())
    written = json.loads((hf / "config.json").read_text())
    written["rope_theta"] = written.pop("rope_parameters")["rope_theta"]
    written["torch_dtype"] = written.pop("dtype")
    (hf / "config.json").write_text(json.dumps(written))
    convert(hf, tmp_path / "a.nemo", "nemo")
    convert(tmp_path / "a.nemo", tmp_path / "back", "hf", verified=True)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == written


def test_verifying_finds_a_changed_value_and_leaves_nothing(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = verify._compare_tensors

    def spoil_first(before, after, progress):  # type: ignore[no-untyped-def]
        file = after.path / "model.safetensors"
        tensors = weights(after.path)
        tensors["model.layers.2.mlp.up_proj.weight"][3, 4] += 1e-6
        save_file(tensors, file, metadata={"format": "pt"})
        from azr_nemo.conversion.hugging_face import open_hf_source

        with open_hf_source(after.path) as spoilt:
            return read(before, spoilt, progress)

    convert(source(), tmp_path / "a.nemo", "nemo")
    monkeypatch.setattr(verify, "_compare_tensors", spoil_first)
    with pytest.raises(UserError, match=r"the tensor model\.layers\.2\.mlp\.up_proj\.weight .* is not that of"):
        convert(tmp_path / "a.nemo", tmp_path / "back", "hf", verified=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nemo"]


def test_verifying_finds_a_setting_that_makes_another_model(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = verify._logits_of_megatron

    def with_another_rope(opened, tokens):  # type: ignore[no-untyped-def]
        opened.config.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
        return logits(opened, tokens)

    monkeypatch.setattr(verify, "_logits_of_megatron", with_another_rope)
    with pytest.raises(UserError, match=r"the logits of .* differ by .*: expected at most 0\.000"):
        convert(source(), tmp_path / "checkpoint", "megatron", verified=True)
    assert list(tmp_path.iterdir()) == []


def test_a_models_own_settings_may_differ_from_what_nemo_was_told_in_what_is_no_part_of_the_model(
    source: Source, nemo_folder: Path, tmp_path: Path
) -> None:
    edit_json(nemo_folder / "huggingface" / "config.json", max_position_embeddings=128)
    convert(nemo_folder, tmp_path / "back", "hf")
    assert same_weights(source(), tmp_path / "back")
