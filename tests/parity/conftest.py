"""Fixtures of the tests that start ranks."""

import os
from pathlib import Path

import pytest
from tiny_models import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny Llama with random weights."""
    return write_model(tmp_path_factory.mktemp("llama"), "llama-tied")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the runs of `killing.ARGUMENTS` keep their warm-started weights, for all workers of this session."""
    own = tmp_path_factory.getbasetemp()
    return os.environ.get("AZR_NEMO_CACHE") or str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache")
