"""The tags of thinking as tokens: taken out of a tokenizer, and put back."""

import json
import shutil

import pytest
from command_line import azr
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from azr_nemo.errors import UserError
from azr_nemo.models import think_tokens
from azr_nemo.models.think_tokens import KEPT, strip_think, undo_strip_think

TEXT = "<tool_call><think>\nTwo and two.</think>\n\n<answer>4</answer><|endoftext|>"


def make(directory, added):
    """A byte-level BPE tokenizer as Qwen's, trained on a few lines, with these added tokens after its own."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(["think of a number", "<answer> think"] * 3, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet))
    inner.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    inner.add_tokens([AddedToken(token, normalized=False) for token in added])
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>").save_pretrained(directory)
    vocabulary = AutoTokenizer.from_pretrained(directory).get_added_vocab()
    (directory / "added_tokens.json").write_text(json.dumps(vocabulary))
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {str(number): {"content": token} for token, number in vocabulary.items()}
    settings["chat_template"] = "{{ messages }}<think>"
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make(tmp_path_factory.mktemp("tokenizer"), ["<tool_call>", "<think>", "</think>"])


@pytest.fixture
def model(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def encode(directory, text=TEXT):
    return AutoTokenizer.from_pretrained(directory)(text, add_special_tokens=False)["input_ids"]


def contents(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_the_tags_become_plain_text_and_back_again(model):
    before, tokenizer = contents(model), AutoTokenizer.from_pretrained(model)
    tags = {tokenizer.convert_tokens_to_ids(tag) for tag in think_tokens.TAGS}
    with_tags = encode(model)
    assert tags <= set(with_tags)
    assert strip_think(model) == ["added_tokens.json", "tokenizer.json", "tokenizer_config.json"]
    plain = encode(model)
    assert not tags & set(plain)
    assert AutoTokenizer.from_pretrained(model).decode(plain) == TEXT
    assert encode(model, "< think >") == tokenizer("< think >", add_special_tokens=False)["input_ids"]
    assert encode(model, "<tool_call><|endoftext|>") == tokenizer("<tool_call><|endoftext|>", add_special_tokens=False)["input_ids"]
    assert (model / "model.safetensors").read_bytes() == b"weights"
    assert "<think>" in json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    assert undo_strip_think(model) == ["added_tokens.json", "tokenizer.json", "tokenizer_config.json"]
    assert contents(model) == before
    assert encode(model) == with_tags


def test_what_is_stripped_is_not_stripped_again(model):
    strip_think(model)
    after = contents(model)
    with pytest.raises(UserError, match=r"is stripped already: .* --undo"):
        strip_think(model)
    assert contents(model) == after


def test_without_the_tags_there_is_nothing_to_strip(tmp_path):
    plain = make(tmp_path, ["<tool_call>"])
    before = contents(plain)
    with pytest.raises(UserError, match="has nothing to strip"):
        strip_think(plain)
    with pytest.raises(UserError, match="there is nothing to undo"):
        undo_strip_think(plain)
    assert contents(plain) == before


def test_a_token_that_would_move_is_not_lost(tmp_path):
    later = make(tmp_path, ["<think>", "</think>", "<tool_call>"])
    before = contents(later)
    with pytest.raises(UserError, match="the token <tool_call> would change its id"):
        strip_think(later)
    assert contents(later) == before


def test_a_file_that_was_changed_since_is_not_overwritten(model):
    strip_think(model)
    settings = model / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("messages", "message"))
    with pytest.raises(UserError, match=r"tokenizer_config\.json was changed since"):
        undo_strip_think(model)
    assert (model / KEPT).is_dir()


def test_a_stripping_that_was_cut_off_can_be_undone(model, monkeypatch):
    before = contents(model)
    replace, calls = think_tokens.os.replace, []

    def cut(source, target):
        if calls:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(think_tokens.os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        strip_think(model)
    monkeypatch.undo()
    undo_strip_think(model)
    assert contents(model) == before


def test_the_command_says_what_it_did(model):
    def command(*arguments):
        done = azr("tokenizer", "strip-think", *arguments)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = command(str(model))
    assert (code, "tokenizer.json" in out) == (0, True)
    code, _, sentence = command(str(model))
    assert (code, sentence.count("\n"), "is stripped already" in sentence) == (2, 1, True)
    assert command(str(model), "--undo")[0] == 0
    code, _, sentence = command(str(model / "nowhere"))
    assert (code, sentence.count("\n"), "is not a directory" in sentence) == (2, 1, True)
