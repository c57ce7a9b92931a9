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
    host: Annotated[str, typer.Option(help="USER@HOST of a login node to submit from by ssh; --home is then a checkout over there")] = "",
    job_dir: Annotated[Path, typer.Option(help="for NeMo-Run's scripts and logs")] = Path("runs/launch"),
    wait: Annotated[bool, typer.Option("--wait", help="follow a job on Slurm to its end")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the batch script and stop")] = False,
) -> None:
    """Trains a recipe on Slurm or on this machine through NeMo-Run: azr-nemo launch recipe=NAME --executor slurm --nodes 2

    Needs the extra [launch]. launcher_scripts/slurm/submit.sh does the same with nothing but bash, and more: chains, a group of sandbox servers.
    """
    from azr_nemo.launch.nemo import nemo_run, start
    from azr_nemo.launch.request import Launch, prepare

    prepared = prepare(
        Launch(
            tuple(overrides or []),
            executor,
            nodes,
            gpus,
            ranks,
            partition,
            account,
            time,
            signal_s,
            retries,
            fabric,
            container,
            tuple(mount or []),
            python,
            home or Path.cwd(),
            host,
            job_dir,
        )  # fmt: skip
    )
    nemo_run()
    start(prepared, dry_run, wait)
