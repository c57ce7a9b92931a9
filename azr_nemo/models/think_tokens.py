"""Takes `<think>` and `</think>` out of a tokenizer, and puts them back.

Qwen3's tokenizer has a token for each tag, which the base models were never trained on: their embeddings are noise, and a prompt that opens
`<think>` begins with it. Without those tokens the tags are written in ordinary ones. The weights stay as they are.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError

TAGS = ("<think>", "</think>")
KEPT = ".strip-think"  # in the model's directory: the files as they were, and what they became
RECORD = "stripped.json"
# Where a Hugging Face directory names its added tokens; an empty list: the whole file does.
PLACES: dict[str, list[str]] = {
    "tokenizer.json": ["added_tokens"],
    "tokenizer_config.json": ["added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"],
    "special_tokens_map.json": ["additional_special_tokens", "extra_special_tokens"],
    "added_tokens.json": [],
}
SAMPLE = "def f(x):\n    return [x, 'é', \"思\"] # < think > 12.5 </ think>\t<thinking> think"


def strip_think(directory: Path) -> list[str]:
    """Rewrites the tokenizer's files without the two tokens, and keeps the originals for `undo_strip_think`. Returns the names of those files.

    Raises UserError when it was done before, when there is nothing to take out, and when any other token would change by it; the directory
    is then as it was.
    """
    if (directory / KEPT).exists():
        raise UserError(f"{directory} is stripped already: `azr-nemo tokenizer strip-think {directory} --undo` puts the tokens back")
    changed = {name: text for name, places in PLACES.items() if (text := _stripped(directory / name, places)) is not None}
    if not changed:
        raise UserError(f"{directory} has nothing to strip: none of its tokenizer files has the token {' or '.join(TAGS)}")
    if not os.access(directory, os.W_OK):
        raise UserError(f"{directory} cannot be written: copy the model to a directory of your own first")
    with tempfile.TemporaryDirectory(dir=directory, prefix=".stripping-") as temporary:
        trial, kept = Path(temporary) / "tokenizer", Path(temporary) / "kept"
        trial.mkdir()
        kept.mkdir()
        for file in directory.iterdir():
            if file.is_file() and file.suffix in (".json", ".jinja", ".txt", ".model") and "safetensors" not in file.name:
                shutil.copyfile(file, trial / file.name)
        _write(trial, changed)
        _compare(directory, trial)
        for name in changed:
            shutil.copyfile(directory / name, kept / name)
        _write(kept, {RECORD: json.dumps({name: _digest(text.encode()) for name, text in changed.items()}, indent=1) + "\n"})
        os.rename(kept, directory / KEPT)  # from here on `--undo` brings everything back
        for name in changed:
            os.replace(trial / name, directory / name)
    return sorted(changed)


def undo_strip_think(directory: Path) -> list[str]:
    """Puts the files back as they were, byte for byte, and returns their names. Raises UserError when nothing was stripped, or when a file was
    changed since, which would be lost."""
    kept = directory / KEPT
    try:
        record = json.loads((kept / RECORD).read_text(encoding="utf-8"))
        originals = {name: (kept / name).read_bytes() for name in record}
    except (OSError, ValueError):
        raise UserError(f"{directory} was not stripped by `azr-nemo tokenizer strip-think`: there is nothing to undo") from None
    for name, digest in record.items():
        # A file may be the original still: when the stripping was cut off.
        if not (directory / name).is_file() or _digest((directory / name).read_bytes()) not in (digest, _digest(originals[name])):
            raise UserError(
                f"{directory / name} was changed since its tokens were stripped: take what you need of the original from {kept}"
            )
    for name in originals:
        aside = directory / f".{name}.writing"
        shutil.copyfile(kept / name, aside)
        os.replace(aside, directory / name)
    shutil.rmtree(kept)
    return sorted(originals)


def _stripped(path: Path, places: list[str]) -> str | None:
    """The file's JSON without the tags, or None when it has none of them."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is not JSON: fetch the tokenizer again") from None
    before = json.dumps(content)
    if not places:
        content = _without(content)
    for place in places:
        if place in content:
            content[place] = _without(content[place])
    return None if json.dumps(content) == before else json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _without(tokens: Any) -> Any:
    """Added tokens as a list or dictionary of texts, or of {"content": text}, or by text: without those that are a tag."""

    def is_tag(token: Any) -> bool:
        return (token.get("content") if isinstance(token, dict) else token) in TAGS

    if isinstance(tokens, dict):
        return {key: token for key, token in tokens.items() if key not in TAGS and not is_tag(token)}
    return [token for token in tokens if not is_tag(token)] if isinstance(tokens, list) else tokens


def _compare(before: Path, after: Path) -> None:
    """Raises UserError unless the tags became ordinary tokens and all else is encoded as it was."""
    from transformers import AutoTokenizer

    old, new = (AutoTokenizer.from_pretrained(directory, trust_remote_code=False) for directory in (before, after))

    def encode(tokenizer: Any, text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    others = [token for token in old.get_added_vocab() if token not in TAGS]
    if moved := [token for token in others if old.convert_tokens_to_ids(token) != new.convert_tokens_to_ids(token)]:
        raise UserError(f"{before} cannot be stripped: the token {moved[0]} would change its id, so it was left as it is")
    if encode(old, SAMPLE + "".join(others)) != encode(new, SAMPLE + "".join(others)):
        raise UserError(f"{before} cannot be stripped: text without the tags would be encoded in another way, so it was left as it is")
    if left := [tag for tag in TAGS if len(encode(new, tag)) < 2]:
        raise UserError(f"{before} cannot be stripped: {left[0]} would still be one token, so it was left as it is")


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
