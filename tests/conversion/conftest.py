"""Fixtures: tiny models on disk, made once."""

import sys
from collections.abc import Callable
from pathlib import Path

import process_trees
import pytest
import torch
from conversion_models import VERL, write_source

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


@pytest.fixture(scope="session")
def verl_checkpoints(source: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By layout, the `global_step_7` of a tiny model that real ranks trained and saved as veRL does."""
    steps = {how: tmp_path_factory.mktemp(how) / "global_step_7" for how in VERL}
    words = [str(word) for how, step in steps.items() for word in (source(VERL[how][1]), step / "actor", VERL[how][0], how)]
    script = Path(__file__).with_name("fsdp_ranks.py")
    done = process_trees.run([sys.executable, script, *words], timeout=280)
    assert done.returncode == 0, done.stderr
    return steps


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
