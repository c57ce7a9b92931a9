"""A prepared launch on NeMo-Run's SlurmExecutor or LocalExecutor. One task a node runs launcher_scripts/slurm/node.sh, as the batch scripts do:
it starts torchrun and tells the ranks when Slurm wants the run to stop."""

import shlex
import shutil
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.launch.request import Prepared

# Of the job, so known only when it runs.
SETUP = """\
export AZR_NODES=$SLURM_JOB_NUM_NODES AZR_PORT=$((20000 + SLURM_JOB_ID % 10000)) AZR_MEETING=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
AZR_HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export AZR_HEAD
"""


def nemo_run() -> Any:
    """The module. Raises UserError when it is not there or does not load."""
    try:
        import nemo_run
    except ImportError as error:
        raise UserError(
            f"azr-nemo launch stands on NeMo-Run, which does not load here ({error}): pip install 'azr-nemo[launch]', "
            "or use launcher_scripts/slurm/submit.sh, which needs nothing"
        ) from None
    return nemo_run


def executor(prepared: Prepared) -> Any:
    """NeMo-Run's executor for this launch."""
    run, launch = nemo_run(), prepared.launch
    environment = {name: shlex.quote(value) for name, value in prepared.environment.items()}
    if launch.executor == "local":
        return run.LocalExecutor(ntasks_per_node=1, env_vars=prepared.environment)
    srun = ["--cpu-bind=none"]  # else the one task of a node, and so all of its ranks, may be bound to one processor
    if launch.container:
        srun.append("--no-container-mount-home")  # a ~/.local of the host would shadow the image's packages
    return run.SlurmExecutor(
        account=launch.account or None,
        partition=launch.partition or None,
        job_name_prefix="azr.",
        nodes=prepared.nodes,
        ntasks_per_node=1,
        gpus_per_node=prepared.gpus or None,
        time=launch.time,
        # To the tasks, that is node.sh: NeMo-Run's batch script would not pass on a signal of its own.
        signal=f"USR1@{launch.signal_s}" if launch.signal_s else None,
        container_image=launch.container or None,
        container_mounts=[f"{launch.home}:{launch.home}", *launch.mounts] if launch.container else [],
        srun_args=srun,
        additional_parameters={"requeue": True},
        setup_lines=SETUP,
        env_vars=environment,
        packager=run.Packager(),  # the run starts in `home`; nothing is copied
        tunnel=run.LocalTunnel(job_dir=""),  # sbatch of this machine; the job's files where NeMo-Run keeps its own, see `start`
        retries=launch.retries,
        poll_estimated_start_time=False,
    )


def script(prepared: Prepared) -> Any:
    """What each node runs. Inline, as NeMo-Run joins the words of a command without quoting them."""
    return nemo_run().Script(inline=f"exec {prepared.command}")


def start(prepared: Prepared, dry_run: bool = False, wait: bool = False) -> None:
    """Submits to Slurm, or runs here until it ends. dry_run: prints the batch script instead. wait: follows a job on Slurm to its end.
    Raises UserError when the job is refused or the run failed."""
    run = nemo_run()
    from invoke.exceptions import UnexpectedExit  # what NeMo-Run runs commands with

    local = prepared.launch.executor == "local"
    if not local and not dry_run and not shutil.which("sbatch"):
        raise UserError("--executor slurm submits with sbatch, which is not on this machine: start it on a login node of the cluster")
    run.config.set_nemorun_home(str(prepared.launch.job_dir.resolve()))
    with run.Experiment(prepared.name) as experiment:
        experiment.add(script(prepared), executor=executor(prepared), name=prepared.name, tail_logs=local or wait)
        if dry_run:
            experiment.dryrun()
            return
        try:
            experiment.run(detach=not (local or wait), tail_logs=local or wait)
        except UnexpectedExit as error:
            raise UserError(f"the job was refused: {' '.join(error.result.stderr.split()) or error}") from None
    if local or wait:  # an experiment waits for its jobs when its context ends
        _check(experiment)


def _check(experiment: Any) -> None:
    # Slurm without accounting forgets how a job ended, which is then UNKNOWN.
    states = {job.id: job.state.name for job in experiment.jobs}
    if {"FAILED", "CANCELLED"} & set(states.values()):
        raise UserError(f"the launched run did not succeed ({states}): its log is above and in the job's directory")
