"""A prepared launch on NeMo-Run's SlurmExecutor or LocalExecutor. One task a node runs launcher_scripts/slurm/node.sh, as the batch scripts do:
it starts torchrun and tells the ranks when Slurm wants the run to stop."""

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.compose import ROOT
from azr_nemo.settings.schema import RunConfig

SCRIPTS = ROOT / "launcher_scripts" / "slurm"  # in a wheel inside the package
EXECUTORS = ("slurm", "local")
# Slurm's forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on.
TIME = re.compile(r"(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2})")


@dataclass(frozen=True)
class Launch:
    """One run on `executor`. nodes, gpus: None takes the recipe's cluster.nodes and cluster.gpus_per_node. home: the directory that the run
    starts in, on every node. mounts: `SRC:DST` pairs. signal_s: seconds before the time limit at which the run is asked to save and stop.
    retries: how often a run that was stopped or failed goes back into the queue."""

    overrides: tuple[str, ...]
    executor: str = "slurm"
    nodes: int | None = None
    gpus: int | None = None
    ranks: int = 1  # a node, where gpus is 0
    partition: str = ""
    account: str = ""
    time: str = "04:00:00"
    signal_s: int = 300
    retries: int = 0
    fabric: str = ""
    container: str = ""
    mounts: tuple[str, ...] = ()
    python: str = ""
    home: Path = field(default_factory=Path.cwd)
    job_dir: Path = Path("runs/launch")  # NeMo-Run's scripts and logs


@dataclass(frozen=True)
class Prepared:
    """A checked launch. environment: of node.sh, on every node. command: one line of shell that each node runs."""

    launch: Launch
    config: RunConfig
    name: str
    nodes: int
    gpus: int
    ranks: int
    environment: dict[str, str]
    command: str


def prepare(launch: Launch) -> Prepared:
    """Checks the recipe, its settings and the launch. Raises UserError for the first thing that cannot be."""
    config = load_settings(list(launch.overrides))
    nodes = config.cluster.nodes if launch.nodes is None else launch.nodes
    gpus = config.cluster.gpus_per_node if launch.gpus is None else launch.gpus
    ranks = gpus or launch.ranks
    if launch.executor not in EXECUTORS:
        raise UserError(f"--executor {launch.executor} is unknown: choose {' or '.join(EXECUTORS)}")
    if launch.executor == "local" and nodes != 1:
        raise UserError(f"--executor local is this machine alone, not {nodes} nodes: give --nodes 1, or take --executor slurm")
    for option, value, least in (
        ("--nodes", nodes, 1), ("--gpus", gpus, 0), ("--ranks", ranks, 1), ("--retries", launch.retries, 0), ("--signal-s", launch.signal_s, 0),
    ):  # fmt: skip
        if value < least:
            raise UserError(f"{option} {value} must be at least {least}")
    model_ranks = config.engine.tensor_parallel * config.engine.pipeline_parallel
    if nodes * ranks % model_ranks:
        raise UserError(
            f"{nodes} nodes of {ranks} ranks cannot hold engine.tensor_parallel x engine.pipeline_parallel = {model_ranks}: "
            "their product must be a multiple of it"
        )
    if not TIME.fullmatch(launch.time):
        raise UserError(f"--time {launch.time} is not a time limit of Slurm: write minutes, or hours:minutes:seconds as in 04:00:00")
    if launch.fabric and "/" not in launch.fabric and not (SCRIPTS / "env" / f"{launch.fabric}.sh").is_file():
        known = ", ".join(sorted(path.stem for path in (SCRIPTS / "env").glob("*.sh")))
        raise UserError(f"--fabric {launch.fabric} is unknown: there are {known}, or give the path of a file")
    for mount in launch.mounts:
        if ":" not in mount:
            raise UserError(f"--mount {mount} is not SRC:DST")
    if launch.container and set(str(launch.home)) & set(",:"):
        raise UserError(
            f"--home {launch.home} cannot be mounted in a container: pyxis separates mounts by , and :, so give another directory"
        )
    if launch.executor == "local" and launch.container:
        raise UserError("--container is for --executor slurm: a local run takes this Python on this machine")
    return Prepared(launch, config, _name(config), nodes, gpus, ranks, _environment(launch, ranks), _command(launch))


def _name(config: RunConfig) -> str:
    return "azr-" + re.sub(r"[^\w.-]+", "-", Path(config.recipe or "run").stem)


def _environment(launch: Launch, ranks: int) -> dict[str, str]:
    """What node.sh reads and the job itself does not know."""
    environment = {"AZR_HOME": str(launch.home), "AZR_RANKS": str(ranks)}
    python = launch.python or ("" if launch.container else sys.executable)
    optional = {"AZR_PYTHON": python, "AZR_FABRIC": launch.fabric, "AZR_CONTAINER": launch.container}
    environment |= {name: value for name, value in optional.items() if value}
    if launch.executor == "slurm" and launch.retries:
        environment["AZR_STOPPED_CODE"] = str(os.EX_TEMPFAIL)  # NeMo-Run's script requeues what ended with another code than 0
    if launch.executor == "local":
        environment |= {"AZR_NODES": "1", "AZR_HEAD": "localhost", "AZR_PORT": "0", "AZR_INTERFACE": "lo", "AZR_MEETING": str(os.getpid())}
    return environment


def _command(launch: Launch) -> str:
    # A container sees `home` and what is mounted, so the checkout must be there.
    scripts = launch.home / "launcher_scripts" / "slurm" if launch.container else SCRIPTS
    overrides = [_absolute(override) for override in launch.overrides]
    return shlex.join(["bash", str(scripts / "node.sh"), "train", *overrides])


def _absolute(override: str) -> str:
    """A recipe's file by its whole path, as the job runs elsewhere."""
    name, _, value = override.partition("=")
    return f"recipe={Path(value).expanduser().resolve()}" if name == "recipe" and value.endswith((".yaml", ".yml")) else override


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
