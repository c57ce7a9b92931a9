"""What the scripts make of a job, on a real Slurm of two nodes, with a stand-in for the trainer."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import ROOT, Cluster, wait_until
from stand_in_job import StandIn

Job = Callable[..., StandIn]


def test_every_node_starts_its_ranks_and_the_first_one_holds_the_store(cluster: Cluster, stand_in: Job) -> None:
    job = stand_in("--nodes=2", "--gpus-per-node=4", settings=["selfplay.steps=7", "data.seed_files=[/a b.jsonl]"], AZR_FABRIC="infiniband")
    assert cluster.wait_for_state(job.number, "COMPLETED", "FAILED") == "COMPLETED"
    port = 20000 + job.number % 10000
    for node, is_host in (("node1", 1), ("node2", 0)):
        call = next(line for line in job.lines() if line.startswith(f"{node}: -m torch"))
        assert f"--nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d --rdzv-endpoint=node1:{port}" in call
        assert f"--rdzv-id={job.number}.0 --rdzv-conf=is_host={is_host},join_timeout=900 --max-restarts=0" in call
        assert call.endswith("-m azr_nemo train recipe=any selfplay.steps=7 data.seed_files=[/a b.jsonl]")
        assert f"{node}: GLOO_SOCKET_IFNAME=eth0" in job.lines()
        assert f"{node}: NCCL_IB_TIMEOUT=22" in job.lines()
        assert any(line.startswith(f"{node}: CUDA_VISIBLE_DEVICES=0,1,2,3") for line in job.lines())
    assert not any("PYXIS" in line for line in job.lines())


def test_a_container_sees_the_checkout_and_its_mounts_and_not_the_home_directory(cluster: Cluster, stand_in: Job) -> None:
    job = stand_in(AZR_CONTAINER="registry#team/azr:1", AZR_MOUNTS="/scratch:/scratch,/models:/models:ro")
    cluster.wait_for_state(job.number, "COMPLETED")
    asked = {line.removeprefix("node1: ") for line in job.lines() if "PYXIS_STUB" in line}
    assert asked == {
        "PYXIS_STUB_CONTAINER_IMAGE=registry#team/azr:1",
        f"PYXIS_STUB_CONTAINER_MOUNTS={ROOT}:{ROOT},/scratch:/scratch,/models:/models:ro",
        f"PYXIS_STUB_CONTAINER_WORKDIR={ROOT}",
        "PYXIS_STUB_NO_CONTAINER_MOUNT_HOME=1",
    }


@pytest.mark.parametrize("process_tracking", ["cgroup", "linuxproc"])
def test_ranks_are_told_to_stop_once_whichever_processes_slurm_signals(
    make_cluster: Callable[[str], Cluster], cluster: Cluster, process_tracking: str, tmp_path: Path
) -> None:
    def stopped(cluster: Cluster) -> None:
        for name, command in (("usr1", ["scancel", "--signal=USR1", "--batch"]), ("term", ["scancel"])):
            job = StandIn(cluster, tmp_path / f"{name}.log", "--nodes=2", behaviour="run", AZR_REQUEUE="no")
            job.wait_for_line("rank is ready", times=2)
            cluster.run(*command, str(job.number))
            assert cluster.wait_for_state(job.number, "COMPLETED", "CANCELLED") == ("COMPLETED" if name == "usr1" else "CANCELLED")
            job.wait_for_line("the run ended with exit code 0")
            assert {"node1: rank was told 1 times", "node2: rank was told 1 times"} <= set(job.lines())

    if process_tracking == "cgroup":
        stopped(cluster)
    else:
        with make_cluster(process_tracking) as other:
            stopped(other)


def test_a_run_that_is_stopped_before_its_time_limit_goes_back_into_the_queue(cluster: Cluster, stand_in: Job) -> None:
    job = stand_in(behaviour="run")
    job.wait_for_line("rank is ready")
    cluster.run("scancel", "--signal=USR1", "--batch", str(job.number))
    cluster.requeued(job.number, 1)
    job.wait_for_line("rank is ready", times=2)
    assert any(f"start 1 of job {job.number}" in line for line in job.lines())
    assert any(f"--rdzv-id={job.number}.1" in line for line in job.lines())
    cluster.run("scancel", str(job.number))
    assert cluster.wait_for_state(job.number, "CANCELLED")


def test_a_preemption_with_a_grace_time_goes_back_into_the_queue_too(cluster: Cluster, stand_in: Job) -> None:
    """Slurm signals the steps alone, calls a job complete that ends within the grace time, and does not requeue it."""
    job = stand_in("--partition=grace", "--nodelist=node1", "--gres=gpu:8", behaviour="run")
    job.wait_for_line("rank is ready")
    other = cluster.preempt("node1")
    cluster.wait_for_state(other, "COMPLETED")
    cluster.requeued(job.number, 1)
    job.wait_for_line("rank is ready", times=2)
    cluster.run("scancel", str(job.number))


def test_a_run_that_fails_is_tried_again_as_often_as_retries_says(cluster: Cluster, stand_in: Job) -> None:
    job = stand_in("--nodes=2", behaviour="3", AZR_RETRIES="1")
    cluster.requeued(job.number, 1)
    assert cluster.wait_for_state(job.number, "FAILED", "COMPLETED") == "FAILED"
    assert cluster.job(job.number)["ExitCode"] == "3:0", "\n".join(job.lines())
    assert cluster.job(job.number)["Restarts"] == "1"


def test_the_hand_written_commands_of_the_scripts_are_accepted(cluster: Cluster) -> None:
    scripts = ROOT / "launcher_scripts" / "slurm"
    answer = cluster.run(
        "sbatch", "--test-only", "--mem=1000", "--time=10", "--nodes=2", "--gpus-per-node=8", scripts / "azr.sbatch", "recipe=x"
    )
    assert "node[1-2]" in answer


def test_nothing_outlives_a_cluster(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    def processes(cluster: Cluster) -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                if str(cluster.folder).encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    with make_cluster("cgroup") as cluster:
        StandIn(cluster, tmp_path / "job.log", behaviour="run").wait_for_line("rank is ready")
        running = processes(cluster)
        assert any("slurmctld" in command for command in running)
        assert any("stand_in.py rank" in command for command in running)
    wait_until(lambda: not processes(cluster), 20, lambda: f"the end of {processes(cluster)}")
