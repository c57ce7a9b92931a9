"""What is to be launched where, checked before anything is queued. Needs no NeMo-Run."""

import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from azr_nemo.errors import UserError
from azr_nemo.settings.compose import ROOT
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.settings import load_settings

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
