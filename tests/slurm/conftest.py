"""One cluster for all tests that need one; without AZR_SLURM_TESTS=1 (make test-slurm) these skip."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from slurm_cluster import HERE, ROOT, Cluster, wait_until, why_not


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


class StandIn:
    """A job of azr.sbatch whose Python is stand_in.py. options: of sbatch. environment: the scripts' AZR_* variables."""

    def __init__(self, cluster: Cluster, log: Path, *options: str, behaviour: str = "0", settings: Sequence[str] = (), **environment: str):
        self.cluster, self.log = cluster, log
        script = ROOT / "launcher_scripts" / "slurm" / "azr.sbatch"
        environment = {"AZR_HOME": str(ROOT), "AZR_PYTHON": str(HERE / "stand_in.py"), "STAND_IN": behaviour, **environment}
        answer = cluster.run("sbatch", "--mem=100", f"--output={log}", *options, script, "recipe=any", *settings, **environment)
        self.number = int(answer.split()[-1])

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for_line(self, text: str, times: int = 1, timeout: float = 60) -> None:
        wait_until(lambda: sum(text in line for line in self.lines()) >= times, timeout, lambda: f"{text!r} in {self.lines()}")


@pytest.fixture
def stand_in(cluster: Cluster, tmp_path: Path) -> Callable[..., StandIn]:
    return lambda *options, **how: StandIn(cluster, tmp_path / "job.log", *options, **how)
