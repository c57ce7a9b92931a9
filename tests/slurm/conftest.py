"""One cluster for all tests that need one; without AZR_SLURM_TESTS=1 (make test-slurm) these skip."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, why_not
from stand_in_job import StandIn


@pytest.fixture(scope="session")
def make_cluster(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Cluster]:
    if os.environ.get("AZR_SLURM_TESTS") != "1":
        pytest.skip("Slurm for real takes minutes: make test-slurm")
    if reason := why_not():
        pytest.skip(reason)
    return lambda process_tracking: Cluster(tmp_path_factory.mktemp("slurm") / process_tracking, process_tracking)


@pytest.fixture(scope="session")
def cluster(make_cluster: Callable[[str], Cluster]) -> Iterator[Cluster]:
    with make_cluster("cgroup") as cluster:
        yield cluster


@pytest.fixture
def stand_in(cluster: Cluster, tmp_path: Path) -> Callable[..., StandIn]:
    return lambda *options, **how: StandIn(cluster, tmp_path / "job.log", *options, **how)
