"""The shape of a model before its weights are at hand: what dry runs and estimates of memory are made from.

`architectures/NAME.json` holds the sizes of published models under the keys of their config.json, without what says nothing about layout or size.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from azr_nemo.errors import UserError
from azr_nemo.settings.schema import ModelConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig  # takes seconds to import

FOLDER = Path(__file__).parent / "architectures"


def architectures() -> list[str]:
    """The published models whose shapes are known."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def model_shape(model: ModelConfig) -> "PretrainedConfig":
    """The Hugging Face configuration of a model whose weights may be absent: the one of `model.path` when that is there (a Hugging Face directory, or
    NeMo's file or folder), the known one of `embedded:` and `scratch:` models, else that of `model.architecture`. Raises UserError when there is
    none."""
    from azr_nemo.megatron.huggingface import read_config
    from azr_nemo.models import tiny

    if model.path == "scratch:tiny":
        return tiny.config(tiny.tokenizer())
    if model.path.startswith("embedded:"):
        return published(model.path.removeprefix("embedded:"))
    directory = Path(model.path).expanduser()
    if (directory / "config.json").is_file():
        return read_config(directory)
    if directory.is_file() or (directory / "model_config.yaml").is_file():
        from azr_nemo.conversion.nemo_archive import open_nemo_source

        with open_nemo_source(directory) as source:
            return source.config
    if model.architecture:
        return published(model.architecture)
    raise UserError(
        f"model.path={model.path} is not a Hugging Face model directory (nor, for engine=aligner, a .nemo file): "
        "get one with `hf download ORG/NAME --local-dir DIR` and give model.path=DIR, "
        f"or, to check a recipe before that, model.architecture, one of {', '.join(architectures())}"
    )


def published(name: str) -> "PretrainedConfig":
    """The configuration of a published model, named as its file in `architectures`. Raises UserError for a name that is not there."""
    from transformers import AutoConfig

    if name not in architectures():
        raise UserError(f"model.architecture={name} is unknown: there are {', '.join(architectures())}")
    settings = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return AutoConfig.for_model(**settings)
