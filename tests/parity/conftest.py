"""Fixtures of the tests that start ranks."""

from pathlib import Path

import pytest
from tiny_models import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny Llama with random weights."""
    return write_model(tmp_path_factory.mktemp("llama"), "llama-tied")
