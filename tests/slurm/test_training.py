"""Real self-play by azr.sbatch and azr-hetero.sbatch on a real Slurm of two nodes: whatever ends a job, the run goes on and ends the same.

The model is the tiny one with random weights: what is tested is how a run stops and goes on, and every step moves the weights. Starting ranks
is what costs time here, so jobs are shared and each test states what became of one.
"""

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from slurm_cluster import ROOT, Cluster, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 12
SETTINGS = [
    "recipe=tiny-1n0g-megatron", "platform=cpu", "warmup.steps=0", "selfplay.batch_size=2", "rollout.estimate_samples=2",
    "rollout.max_propose_tokens=24", "rollout.max_solve_tokens=16", "eval.items=0", "data.seed_factor=1", "data.seed_rounds=1",
    f"data.seed_files=[{ROOT}/tests/data/seeds.jsonl]", "executor.workers=1", "checkpoint.every=100000", "time=30",
]  # fmt: skip
TWO_BY_TWO = ["nodes=2", "ranks=2", "engine.tensor_parallel=2", f"selfplay.steps={STEPS}"]
START_S = 400  # for ranks to come up on a machine that is busy with other things


@dataclass
class Run:
    """A run and what was noted of it on the way."""

    folder: Path
    jobs: list[int] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> list[str]:
        return [*SETTINGS, f"run_dir={self.folder / 'run'}", f"log={self.folder / 'job-%j.log'}"]

    def log(self, place: int = 0) -> str:
        path = self.folder / f"job-{self.jobs[place]}.log"
        return path.read_text() if path.exists() else ""

    def steps(self) -> int:
        """How many steps the run has logged."""
        path = self.folder / "run" / "metrics.jsonl"
        return int(json.loads(path.read_text().splitlines()[-1])["step"]) if path.exists() and path.read_text().endswith("\n") else 0

    def wait_for_steps(self, steps: int) -> None:
        wait_until(lambda: self.steps() >= steps, START_S, lambda: f"step {steps}, at {self.steps()}: {self.log()[-3000:]}")

    def saved(self) -> int:
        return int((self.folder / "run" / "checkpoints" / "latest").read_text().removeprefix("step_"))

    def weights(self, step: int) -> dict[str, str]:
        files = sorted((self.folder / "run" / "checkpoints" / f"step_{step:06}" / "weights").glob("*.safetensors"))
        assert files
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def tasks(self) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.folder / "run" / "buffer.sqlite") as database:
            return database.execute("SELECT * FROM tasks ORDER BY id").fetchall()


@pytest.fixture(scope="module")
def new_run(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Run]]:
    with pytest.MonkeyPatch.context() as patch:
        # A model of its own: that of the user's cache may be of another version.
        patch.setitem(cluster.environment, "AZR_NEMO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield lambda name: Run(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def whole(cluster: Cluster, new_run: Callable[[str], Run]) -> Run:
    run = new_run("whole")
    run.jobs = cluster.submit(*run.settings, *TWO_BY_TWO)
    state = cluster.wait_for_state(run.jobs[0], "COMPLETED", "FAILED", timeout=START_S + 200)
    assert state == "COMPLETED", run.log()[-5000:]
    return run


@pytest.fixture(scope="module")
def interrupted(cluster: Cluster, new_run: Callable[[str], Run]) -> Run:
    """Preempted in its first steps; then, as soon as it goes on, one of its nodes is lost."""
    run = new_run("interrupted")
    run.jobs = [job] = cluster.submit(*run.settings, *TWO_BY_TWO, "sbatch=--gres=gpu:8")
    run.wait_for_steps(1)
    preempting = cluster.preempt("node1,node2")
    cluster.requeued(job, 1)
    run.notes["preempted"] = run.saved()
    cluster.wait_for_state(preempting, "COMPLETED")
    wait_until(lambda: "resumed after step" in run.log(), START_S, lambda: f"a resumed run: {run.log()[-3000:]}")
    cluster.lose("node2")
    cluster.wait_for_requeue(job, 2)
    time.sleep(20)  # what the controller still says to the lost node, "end the job", is given up: it would reach the job's next start
    cluster.bring_back("node2")
    time.sleep(5)  # the other node's processes of the last start are being ended
    cluster.wait_for_nodes()
    cluster.requeued(job, 2)
    assert cluster.wait_for_state(job, "COMPLETED", "FAILED", timeout=START_S + 200) == "COMPLETED", run.log()[-5000:]
    return run


@pytest.fixture(scope="module")
def chain(cluster: Cluster, new_run: Callable[[str], Run]) -> Run:
    """Two links of one rank each: the first comes near its time limit, the second is cancelled."""
    run = new_run("chain")
    run.jobs = [first, second] = cluster.submit(*run.settings, "chain=2", "signal=180", "selfplay.steps=100000")
    run.wait_for_steps(2)
    run.notes["second waits"] = int(cluster.job(second)["Reason"] == "Dependency")
    # As if the limit had been chosen so: Slurm looks every 30 s which jobs are within --signal of their limit.
    hours, minutes, _ = (int(part) for part in cluster.job(first)["RunTime"].split(":"))
    cluster.run("scontrol", "update", f"jobid={first}", f"timelimit={60 * hours + minutes + 3}")
    cluster.wait_for_state(first, "COMPLETED", "FAILED", "TIMEOUT")
    run.notes["first saved"] = run.saved()
    run.wait_for_steps(run.notes["first saved"] + 2)
    run.notes["before cancelling"] = run.steps()
    cluster.run("scancel", str(second))
    cluster.wait_for_state(second, "CANCELLED")
    wait_until(lambda: "Slurm is ending the job" in run.log(1), 100, "the end of the second link")
    run.notes["second saved"] = run.saved()
    return run


def test_two_nodes_of_two_ranks_train_over_gloo(whole: Run) -> None:
    assert f"start 0 of job {whole.jobs[0]} on 2 nodes (node1 node2)" in whole.log()
    assert f"step {STEPS}/{STEPS}" in whole.log()
    assert len(whole.weights(STEPS)) == 4  # one file a rank
    assert whole.weights(0) != whole.weights(STEPS)


def test_a_preempted_run_saves_its_step_and_slurm_requeues_it(interrupted: Run) -> None:
    assert 1 <= interrupted.notes["preempted"] < STEPS
    assert "DUE TO PREEMPTION" in interrupted.log()
    assert f"stopped by SIGTERM after step {interrupted.notes['preempted']}" in interrupted.log()


def test_a_run_that_lost_a_node_goes_on_from_its_checkpoint_when_nodes_are_there(interrupted: Run) -> None:
    assert interrupted.log().count(f"resumed after step {interrupted.notes['preempted']}") == 2
    assert f"start 2 of job {interrupted.jobs[0]}" in interrupted.log()


def test_preempted_and_short_of_a_node_it_ends_with_the_weights_of_an_uninterrupted_run(whole: Run, interrupted: Run) -> None:
    assert interrupted.weights(STEPS) == whole.weights(STEPS)
    assert interrupted.tasks() == whole.tasks()


def test_a_run_near_its_time_limit_ends_its_step_and_saves(cluster: Cluster, chain: Run) -> None:
    assert "USR1: the run ends its step, saves and stops" in chain.log(0)
    assert f"after step {chain.notes['first saved']}, which is saved" in chain.log(0)
    assert cluster.job(chain.jobs[0])["JobState"] == "COMPLETED"


def test_the_next_link_of_a_chain_waits_for_the_one_before_and_goes_on_from_it(chain: Run) -> None:
    assert chain.notes["second waits"]
    assert f"resumed after step {chain.notes['first saved']}" in chain.log(1)


def test_a_cancelled_run_saves_its_step_and_is_not_requeued(cluster: Cluster, chain: Run) -> None:
    assert chain.notes["second saved"] >= chain.notes["before cancelling"] > chain.notes["first saved"]
    time.sleep(2)
    assert cluster.job(chain.jobs[1])["JobState"] == "CANCELLED"
    assert cluster.job(chain.jobs[1])["Restarts"] == "0"


def test_a_group_of_cpu_nodes_runs_the_programs_of_the_trainers_nodes(cluster: Cluster, new_run: Callable[[str], Run]) -> None:
    run = new_run("hetero")
    run.jobs = cluster.submit(*run.settings, "hetero=yes", "nodes=1", "ranks=2", "engine.pipeline_parallel=2", "selfplay.steps=2")
    state = cluster.wait_for_state(run.jobs[0], "COMPLETED", "FAILED", timeout=START_S)
    assert state == "COMPLETED", run.log()[-5000:]
    port = 20000 + run.jobs[0] % 10000
    assert f"executor: remote executor: http://node1:{port} (azr-nemo, local executor, rung" in run.log()
    assert "deduction: 12 of 12 rows accepted" in run.log()
    assert "step 2/2" in run.log()
    assert not re.search(r"\b[0-9a-f]{48}\b", run.log())  # the token
