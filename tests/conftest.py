"""Shared fixtures."""

import os
from pathlib import Path

import process_trees
import pytest
from hypothesis import HealthCheck, settings

os.environ.update(process_trees.ONE_THREAD)  # before torch is loaded
pytest_plugins = ["process_guard"]

# The machines that run these tests are small and shared: how long an example takes says nothing.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker begins a long one when the others have nothing left to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """AZR_NEMO_CACHE of runs that are warm-started: a worker makes those weights once. Two workers that shared it could both train, and a run would go on
    with its own, the runs that it is compared with with those of the other, whose last bits differ with the number of ranks."""
    return os.environ.get("AZR_NEMO_CACHE") or str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tasks and benchmarks, which is not part of the repository."""
    folder = Path(os.environ.get("AZR_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here: set AZR_DATA_DIR to a folder with the seed and benchmark files")
    return folder
