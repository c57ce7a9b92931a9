"""The tiny model is small, whole, the same for a seed, and its tokenizer loses no text."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from azr_nemo.models import missing_parts, resolve_model
from azr_nemo.models.tiny import KEYWORDS, tokenizer
from azr_nemo.settings.schema import ModelConfig


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return resolve_model(ModelConfig(path="scratch:tiny", seed=3), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def words(directory):
    return AutoTokenizer.from_pretrained(directory)


@given(text=st.text(st.characters(codec="utf-8")) | st.lists(st.sampled_from(KEYWORDS)).map("".join))
@example(text="```python\ndef f(x):\n    return x + 1\n```\n")
@example(text="<0x41><pad> <eos>\r\n é 日本 🙂\x00")
@example(text=" a .  , ' n't 's")
def test_any_text_survives_the_tokenizer(words, text):
    assert words.decode(words.encode(text, add_special_tokens=False)) == text


def test_frequent_pieces_are_one_token_each(words):
    assert all(len(words.encode(piece, add_special_tokens=False)) == 1 for piece in KEYWORDS)
    assert words.encode("a") == words.encode("a", add_special_tokens=False)
    assert (words.eos_token_id, words.pad_token_id) == (tokenizer().eos_token_id, tokenizer().pad_token_id)


def test_the_model_is_whole_and_under_a_million_parameters(directory, words):
    assert missing_parts(directory) == ""
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert model.config.vocab_size >= len(words)
    ids = torch.tensor([words.encode("def f(x):\n    return x")])
    with torch.no_grad():
        assert model(ids).logits.isfinite().all()


def test_a_seed_always_gives_the_same_weights_and_another_seed_others(directory, tmp_path):
    read = lambda folder: (folder / "model.safetensors").read_bytes()  # noqa: E731
    again = resolve_model(ModelConfig(path="scratch:tiny", seed=3), tmp_path)
    other = resolve_model(ModelConfig(path="scratch:tiny", seed=4), tmp_path)
    assert read(again) == read(directory) != read(other)
    assert resolve_model(ModelConfig(path="scratch:tiny", seed=3), tmp_path) == again


def test_making_the_model_leaves_the_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    resolve_model(ModelConfig(path="scratch:tiny", seed=6), tmp_path)
    assert torch.rand(1) == expected
