"""The models a run can start from, each as a Hugging Face directory."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

from azr_nemo.errors import UserError
from azr_nemo.settings.schema import ModelConfig

Stage: TypeAlias = Callable[[str], AbstractContextManager[Any]]
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def cache_dir() -> Path:
    """Where converted models and warm-started weights are kept: $AZR_NEMO_CACHE, else the user's cache folder."""
    if own := os.environ.get("AZR_NEMO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "azr-nemo"


def resolve_model(config: ModelConfig, cache: Path | None = None, stage: Stage = lambda text: nullcontext()) -> Path:
    """The directory (config.json, safetensors, tokenizer.json) of `model.path`: a directory as it is, `embedded:` and `scratch:` models
    from the cache, made on first use. stage: shows what is being done while it lasts, as `Console.stage`. Raises UserError when there is no such model."""
    from azr_nemo.models import embedded, tiny  # each needs transformers, which takes seconds to import

    cache = cache or cache_dir()
    kind, _, name = config.path.partition(":")
    if kind == "embedded" and name in embedded.MODELS:
        return embedded.embedded(name, cache, stage)
    if config.path == "scratch:tiny":
        return tiny.tiny(cache, config.seed)
    if kind in ("embedded", "scratch"):
        known = ", ".join(f"embedded:{known}" for known in embedded.MODELS)
        raise UserError(f"model.path={config.path} is unknown: there are {known} and scratch:tiny")
    directory = Path(config.path).expanduser()
    missing = missing_parts(directory)
    if missing:
        raise UserError(
            f"model.path={config.path} is not a Hugging Face model directory: {missing}; "
            "get one with `hf download ORG/NAME --local-dir DIR` and give model.path=DIR"
        )
    return directory


def missing_parts(directory: Path) -> str:
    """What a model directory lacks, in words; empty when it is whole."""
    if not directory.is_dir():
        return "there is no such directory"
    if not (directory / "config.json").is_file():
        return "config.json is missing"
    if not any(directory.glob("*.safetensors")):
        return "no .safetensors file is there"
    if (index := directory / "model.safetensors.index.json").is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            return f"{index.name} cannot be read"
        if lost := [name for name in shards if not (directory / name).is_file()]:
            return f"{lost[0]} is missing ({len(lost)} of {len(shards)} weight files are)"
    if not any((directory / name).is_file() for name in TOKENIZERS):
        return "the tokenizer is missing"
    return ""
