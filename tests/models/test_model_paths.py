"""A model path is a directory, a known name, or a sentence that says what is wrong."""

import json

import pytest

from azr_nemo.errors import UserError
from azr_nemo.models import cache_dir, missing_parts, resolve_model
from azr_nemo.settings.schema import ModelConfig


def test_each_missing_part_is_named(tmp_path):
    assert missing_parts(tmp_path / "no") == "there is no such directory"
    for name, sentence in [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "no .safetensors file is there"),
        ("tokenizer.json", "the tokenizer is missing"),
    ]:
        assert missing_parts(tmp_path) == sentence
        (tmp_path / name).write_text("")
    assert missing_parts(tmp_path) == ""


def test_a_model_whose_download_stopped_between_shards_is_not_whole(tmp_path):
    for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).write_text("")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}))
    assert missing_parts(tmp_path) == "model-00002-of-00002.safetensors is missing (1 of 2 weight files are)"
    (tmp_path / "model-00002-of-00002.safetensors").write_text("")
    assert missing_parts(tmp_path) == ""
    for broken in ("{", "[]", "{}", '{"weight_map": []}'):
        index.write_text(broken)
        assert missing_parts(tmp_path) == "model.safetensors.index.json cannot be read"


def test_a_whole_directory_is_taken_as_it_is(tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.model"):
        (tmp_path / name).write_text("")
    assert resolve_model(ModelConfig(path=str(tmp_path)), tmp_path / "cache") == tmp_path


@pytest.mark.parametrize("path", ["scratch:huge", "embedded:gpt", "/no/such/model"])
def test_an_unknown_model_is_an_error_that_names_the_setting(tmp_path, path):
    with pytest.raises(UserError, match=f"model.path={path}"):
        resolve_model(ModelConfig(path=path), tmp_path)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("AZR_NEMO_CACHE", raising=False)
    assert cache_dir() == tmp_path / "azr-nemo"
    monkeypatch.setenv("AZR_NEMO_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
