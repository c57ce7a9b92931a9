"""`azr-nemo launch` on the real Slurm: NeMo-Run writes the batch script and submits it, node.sh runs on both nodes."""

import sys
from pathlib import Path

import pytest
from slurm_cluster import HERE, ROOT, Cluster, lines_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_nemo_runs_job_starts_torchrun_on_both_nodes_and_goes_back_into_the_queue_when_stopped(cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("nemo_run", reason="needs the extra [launch]", exc_type=ImportError)
    jobs = tmp_path / "jobs"
    command = [
        sys.executable, "-m", "azr_nemo", "launch", "recipe=tiny-1n0g-megatron", "data.seed_files=[/a b.jsonl]", f"run_dir={tmp_path}/run",
        "--nodes", "2", "--ranks", "2", "--time", "10", "--retries", "1", "--partition", "batch", "--home", ROOT, "--job-dir", jobs,
        "--python", HERE / "stand_in.py",
    ]  # fmt: skip
    cluster.run(*command, timeout=400, STAND_IN="run", HOME=str(tmp_path))
    number = int(cluster.run("squeue", "--noheader", "--format=%i").split()[0])

    def lines() -> list[str]:
        return [line for path in jobs.rglob(f"log-*_{number}_*.out") for line in lines_of(path.read_text())]

    def until(text: str, times: int) -> None:
        wait_until(lambda: sum(text in line for line in lines()) >= times, 120, lambda: f"{text!r} in {lines()}")

    until("rank is ready", 2)
    for node, is_host in (("node1", 1), ("node2", 0)):
        call = next(line for line in lines() if line.startswith(f"{node}: -m torch"))
        assert f"--nnodes=2 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-endpoint=node1:{20000 + number % 10000}" in call
        assert f"is_host={is_host}" in call
        assert "data.seed_files=[/a b.jsonl]" in call
    cluster.run("scancel", "--signal=USR1", str(number))  # what --signal=USR1@300 sends, to the tasks
    cluster.requeued(number, 1)
    until("rank is ready", 4)
    assert {"node1: rank was told 1 times", "node2: rank was told 1 times"} <= set(lines())
    cluster.run("scancel", str(number))
    cluster.wait_for_state(number, "CANCELLED")
