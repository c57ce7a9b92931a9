"""A job of azr.sbatch whose Python is stand_in.py."""

from collections.abc import Sequence
from pathlib import Path

from slurm_cluster import HERE, ROOT, Cluster, lines_of, wait_until


class StandIn:
    """options: of sbatch. environment: the scripts' AZR_* variables."""

    def __init__(self, cluster: Cluster, log: Path, *options: str, behaviour: str = "0", settings: Sequence[str] = (), **environment: str):
        self.cluster, self.log = cluster, log
        script = ROOT / "launcher_scripts" / "slurm" / "azr.sbatch"
        environment = {"AZR_HOME": str(ROOT), "AZR_PYTHON": str(HERE / "stand_in.py"), "STAND_IN": behaviour, **environment}
        answer = cluster.run("sbatch", "--mem=100", f"--output={log}", *options, script, "recipe=any", *settings, **environment)
        self.number = int(answer.split()[-1])

    def lines(self) -> list[str]:
        return lines_of(self.log.read_text()) if self.log.exists() else []

    def wait_for_line(self, text: str, times: int = 1, timeout: float = 120) -> None:
        wait_until(lambda: sum(text in line for line in self.lines()) >= times, timeout, lambda: f"{text!r} in {self.lines()}")
