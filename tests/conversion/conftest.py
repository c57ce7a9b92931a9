"""Fixtures: tiny models on disk, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conversion_models import write_source

from azr_nemo.conversion.convert import convert


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the Hugging Face directory of a tiny model: source(family, dtype)."""
    torch.set_num_threads(1)
    made: dict[tuple[str, torch.dtype], Path] = {}

    def make(family: str = "qwen2-untied", dtype: torch.dtype = torch.float32) -> Path:
        if (family, dtype) not in made:
            made[family, dtype] = write_source(tmp_path_factory.mktemp(family) / "hf", family, dtype)
        return made[family, dtype]

    return make


@pytest.fixture
def nemo_folder(source: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of a tiny Qwen2 as `--to nemo` writes it, fresh, to be spoilt."""
    convert(source(), tmp_path / "nemo", "nemo")
    return tmp_path / "nemo"


@pytest.fixture
def checkpoint(source: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint of a tiny Qwen2 as `--to megatron` writes it, fresh, to be spoilt."""
    convert(source(), tmp_path / "checkpoint", "megatron")
    return tmp_path / "checkpoint"
