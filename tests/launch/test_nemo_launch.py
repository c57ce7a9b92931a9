"""NeMo-Run's own objects and the batch script that it writes from them. Skipped without the extra [launch] (make test-slurm installs it)."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import process_trees
import pytest

from azr_nemo.errors import UserError
from azr_nemo.launch import nemo_run
from azr_nemo.launch.nemo_run import Launch, prepare
from azr_nemo.settings.compose import ROOT

TINY = "recipe=tiny-1n0g-megatron"


@pytest.fixture(autouse=True)
def _nemo_run() -> None:
    pytest.importorskip("nemo_run", reason="needs the extra [launch]", exc_type=ImportError)


def test_a_slurm_executor_has_one_task_a_node_and_signals_it_before_the_time_limit(tmp_path: Path) -> None:
    launch = Launch((TINY,), nodes=2, gpus=4, partition="gpu", account="team", time="01:00:00", retries=3, job_dir=tmp_path)
    executor = nemo_run.executor(prepare(launch))
    assert (executor.nodes, executor.ntasks_per_node, executor.gpus_per_node) == (2, 1, 4)
    assert (executor.partition, executor.account, executor.time, executor.signal) == ("gpu", "team", "01:00:00", "USR1@300")
    assert (executor.retries, executor.container_image) == (3, None)
    assert "--cpu-bind=none" in executor.srun_args


def test_a_container_sees_home_and_the_mounts_and_not_the_home_directory(tmp_path: Path) -> None:
    launch = Launch((TINY,), container="reg/a:1", mounts=("/x:/y",), home=Path("/checkout"), job_dir=tmp_path)
    executor = nemo_run.executor(prepare(launch))
    assert executor.container_image == "reg/a:1"
    assert executor.container_mounts == ["/checkout:/checkout", "/x:/y"]
    assert "--no-container-mount-home" in executor.srun_args


def test_the_environment_and_the_command_survive_the_shell(tmp_path: Path) -> None:
    prepared = prepare(Launch((TINY, "data.seed_files=[/a b.jsonl]"), home=Path("/a b"), job_dir=tmp_path))
    assert nemo_run.executor(prepared).env_vars["AZR_HOME"] == "'/a b'"
    assert shlex.split(nemo_run.script(prepared).inline)[-1] == "data.seed_files=[/a b.jsonl]"


def local(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "azr_nemo", "launch", *arguments, "--executor", "local", "--job-dir", str(tmp_path / "jobs")]
    return process_trees.run(command, timeout=500, env={**os.environ, **environment})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_local_launch_trains_on_this_machine(tmp_path: Path) -> None:
    settings = [
        TINY, "platform=cpu", "warmup.steps=0", "selfplay.batch_size=2", "selfplay.steps=1", "rollout.estimate_samples=2", "eval.items=0",
        "rollout.max_propose_tokens=24", "rollout.max_solve_tokens=16", "data.seed_factor=1", "data.seed_rounds=1",
        f"data.seed_files=[{ROOT}/tests/data/seeds.jsonl]", f"run_dir={tmp_path}/run",
    ]  # fmt: skip
    result = local(tmp_path, *settings)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text().strip() == "step_000001"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_local_launch_that_fails_says_so(tmp_path: Path) -> None:
    stand_in = ROOT / "tests" / "slurm" / "stand_in.py"
    result = local(tmp_path, TINY, "--python", str(stand_in), STAND_IN="3")
    assert result.returncode == 2, result.stdout[-3000:] + result.stderr[-3000:]
    assert "azr-nemo: the launched run did not succeed" in result.stderr


@pytest.mark.skipif(bool(shutil.which("sbatch")), reason="sbatch is here")
def test_without_sbatch_a_slurm_launch_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="submits with sbatch, which is not on this machine"):
        nemo_run.start(prepare(Launch((TINY,), job_dir=tmp_path)))
