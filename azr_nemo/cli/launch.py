"""`azr-nemo launch`: a run on Slurm or on this machine through NeMo-Run."""

from pathlib import Path
from typing import Annotated

import typer

from azr_nemo.cli.app import Overrides, app


@app.command()
def launch(
    overrides: Overrides = None,
    executor: Annotated[str, typer.Option(help="slurm | local")] = "slurm",
    nodes: Annotated[int | None, typer.Option(help="default: the recipe's cluster.nodes")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs, and ranks, a node; default: the recipe's cluster.gpus_per_node; 0: CPUs")] = None,
    ranks: Annotated[int, typer.Option(help="ranks a node where there are no GPUs")] = 1,
    partition: Annotated[str, typer.Option()] = "",
    account: Annotated[str, typer.Option()] = "",
    time: Annotated[str, typer.Option(help="time limit, in Slurm's forms")] = "04:00:00",
    signal_s: Annotated[int, typer.Option(help="seconds before the limit at which the run saves and stops; 0: none")] = 300,
    retries: Annotated[int, typer.Option(help="how often a run that was stopped or failed goes back into the queue")] = 0,
    fabric: Annotated[str, typer.Option(help="infiniband, roce, ethernet, efa, slingshot, or a file that sets the variables")] = "",
    container: Annotated[str, typer.Option(help="image for pyxis")] = "",
    mount: Annotated[list[str] | None, typer.Option(help="SRC:DST that the container sees; may be repeated")] = None,
    python: Annotated[str, typer.Option(help="the run's interpreter; default: this one, in a container python3")] = "",
    home: Annotated[Path | None, typer.Option(help="directory that the run starts in, on every node; default: this one")] = None,
    job_dir: Annotated[Path, typer.Option(help="for NeMo-Run's scripts and logs")] = Path("runs/launch"),
    wait: Annotated[bool, typer.Option("--wait", help="follow a job on Slurm to its end")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the batch script and stop")] = False,
) -> None:
    """Trains a recipe on Slurm or on this machine through NeMo-Run: azr-nemo launch recipe=NAME --executor slurm --nodes 2

    Needs the extra [launch]. launcher_scripts/slurm/submit.sh does the same with nothing but bash, and more: chains, a group of sandbox servers.
    """
    from azr_nemo.launch.nemo import start
    from azr_nemo.launch.request import Launch, prepare

    prepared = prepare(
        Launch(
            overrides=tuple(overrides or []), executor=executor, nodes=nodes, gpus=gpus, ranks=ranks, partition=partition, account=account,
            time=time, signal_s=signal_s, retries=retries, fabric=fabric, container=container, mounts=tuple(mount or []), python=python,
            home=home or Path.cwd(), job_dir=job_dir,
        ),
    )  # fmt: skip
    start(prepared, dry_run, wait)
