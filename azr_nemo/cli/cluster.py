"""`azr-nemo plan | doctor`: what a run needs, and what a machine offers to it."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console as Terminal

from azr_nemo.cli.app import Overrides, app, number
from azr_nemo.errors import UserError


@app.command()
def plan(
    overrides: Overrides = None,
    every: Annotated[bool, typer.Option("--all", help="every recipe in one table")] = False,
    prompt: Annotated[int, typer.Option(min=0, help="mean tokens of a prompt; 0: a quarter of rollout.max_prompt_tokens")] = 0,
    response: Annotated[int, typer.Option(min=0, help="mean tokens of a response; 0: a quarter of its limit")] = 0,
) -> None:
    """Sizes a run before it is queued: memory of a rank, whether it fits GPUs of 40, 80 and 141 GB, seconds of a step, and the nearest settings that fit.

    Ranks are those of cluster.nodes x cluster.gpus_per_node. Exit code 1 when the recipe does not fit its own GPUs.
    """
    if every and any(override.startswith("recipe=") for override in overrides or []):
        raise UserError("--all plans every recipe: leave out recipe=..., or leave out --all")
    from azr_nemo.planning import tables
    from azr_nemo.planning.plan import make_plan
    from azr_nemo.planning.run_settings import load_settings
    from azr_nemo.settings.compose import recipes

    terminal = Terminal() if sys.stdout.isatty() else Terminal(width=160)
    if every:
        terminal.print(tables.table_of([load_settings([f"recipe={name}", *(overrides or [])]) for name in recipes()]))
        return
    config = load_settings(overrides or [])
    made = make_plan(config, prompt, response)
    layout = made.size.layout
    terminal.print(
        f"[bold]{config.recipe}[/bold]: {tables.parameters(tables.total_parameters(made.size.model))} parameters on {tables.machines(made.size)}, "
        f"tensor x pipeline x data parallel {layout.tensor} x {layout.pipeline} x {layout.data}"
    )
    terminal.print(tables.parts_table(made))
    terminal.print(tables.time_table(made))
    for sentence in tables.sentences(config, made):
        terminal.print(sentence, soft_wrap=True)
    if not made.fits:
        raise typer.Exit(1)


@app.command()
def doctor(
    overrides: Overrides = None,
    seconds: Annotated[float, number("--seconds", "of the all-reduce between the ranks of a job", least=0, most=86_400)] = 10.0,
    bound: Annotated[float, number("--bound", "the longest wait for another rank, in seconds", least=1, most=86_400)] = 60.0,
) -> None:
    """Says what is wrong with this machine and how to mend it: versions, devices, network, jail, executor and its servers, disk.

    With recipe=... or run_dir=... also whether that run can be started here: directories, room for its checkpoints, model, tokenizer, memory. Under
    torchrun all ranks take part: who they are, clocks, a shared run_dir, an all-reduce. Exit code 1 when something is an error.
    """
    from azr_nemo.doctor import ranks
    from azr_nemo.doctor.checks import about_a_run, examine
    from azr_nemo.doctor.findings import State, table
    from azr_nemo.planning.run_settings import load_settings

    config = load_settings(overrides or [], default_recipe=False)
    if os.environ.get("RANK", "0") != "0":
        ranks.serve(config, seconds, bound)
        return
    findings = list(examine(config, about_a_run(overrides or []), seconds, bound))
    (Terminal() if sys.stdout.isatty() else Terminal(width=160)).print(table(findings))
    sys.stdout.flush()
    if any(finding.state == State.ERROR for finding in findings):
        raise typer.Exit(1)


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
    from azr_nemo.launch.nemo_run import Launch, prepare, start

    prepared = prepare(
        Launch(
            overrides=tuple(overrides or []), executor=executor, nodes=nodes, gpus=gpus, ranks=ranks, partition=partition, account=account,
            time=time, signal_s=signal_s, retries=retries, fabric=fabric, container=container, mounts=tuple(mount or []), python=python,
            home=home or Path.cwd(), job_dir=job_dir,
        ),
    )  # fmt: skip
    start(prepared, dry_run, wait)
