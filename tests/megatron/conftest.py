"""Fixtures: tiny models on disk, and a single-process Megatron job."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import run_config, write_model

from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.huggingface import read_config
from azr_nemo.megatron.platform import Platform, choose_platform
from azr_nemo.settings.schema import RunConfig


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the directory of a tiny model: model_dir(family, dtype)."""
    made: dict[tuple[str, torch.dtype], Path] = {}

    def make(family: str = "llama-tied", dtype: torch.dtype = torch.float32) -> Path:
        if (family, dtype) not in made:
            made[family, dtype] = write_model(tmp_path_factory.mktemp(family), family, dtype)
        return made[family, dtype]

    return make


@pytest.fixture
def platform() -> Platform:
    """The CPU, in a job of one."""
    platform = choose_platform("cpu")
    distributed.start(platform, 1, 1)
    torch.set_num_threads(1)
    return platform


@pytest.fixture
def make_actor(platform: Platform, model_dir: Callable[..., Path]) -> Callable[..., Actor]:
    """A fresh trainer of a tiny model: make_actor(family, config)."""

    def make(family: str = "llama-tied", config: RunConfig | None = None) -> Actor:
        directory = model_dir(family)
        return Actor(config or run_config(), read_config(directory), platform, directory)

    return make
