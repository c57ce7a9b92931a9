"""Tokenizer directories of transformers 5, for the transformers 4 that NeMo 2.1 needs."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from azr_nemo.errors import UserError

NEWER, OLDER = "TokenizersBackend", "PreTrainedTokenizerFast"  # the same class under both names
FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")


@contextmanager
def readable(directory: Path) -> Iterator[Path]:
    """The directory itself, or, while the context lasts, a copy of its tokenizer with the older name of its class. Raises UserError when its
    configuration cannot be read."""
    path = directory / "tokenizer_config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): bring it back, or give another tokenizer with aligner.tokenizer=DIR") from None
    if described.get("tokenizer_class") != NEWER:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as folder:
        copy = Path(folder)
        for name in FILES:
            if (directory / name).is_file():
                shutil.copy(directory / name, copy / name)
        (copy / "tokenizer_config.json").write_text(json.dumps({**described, "tokenizer_class": OLDER}), encoding="utf-8")
        yield copy
