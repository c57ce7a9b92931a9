"""Shared fixtures."""

import gc
import os
from pathlib import Path

import process_trees
import pytest
from hypothesis import HealthCheck, settings

os.environ.update(process_trees.ONE_THREAD)  # before torch is loaded
pytest_plugins = ["process_guard"]
# Of what is imported while tests are collected nothing goes away: the collector would walk through all of it a hundred times.
gc.disable()

# The machines that run these tests are small and shared: how long an example takes says nothing.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("project"), max_examples=20)
settings.load_profile("project")

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """`make test-fast` looks at fewer examples of a property; `make test` at a hundred, where a test does not say."""
    if config.option.markexpr == "not slow":
        settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker begins a long one when the others have nothing left to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


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
