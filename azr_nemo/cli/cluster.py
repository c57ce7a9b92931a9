"""`azr-nemo plan | doctor`: what a run needs, and what a machine offers to it."""

import sys
from typing import Annotated

import typer
from rich.console import Console as Terminal
from rich.table import Table

from azr_nemo.cli.app import Overrides, app
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
    from azr_nemo.planning import report
    from azr_nemo.planning.plan import make_plan
    from azr_nemo.settings import load_settings, recipes

    terminal = Terminal() if sys.stdout.isatty() else Terminal(width=160)
    if every:
        terminal.print(report.table_of([load_settings([f"recipe={name}", *(overrides or [])]) for name in recipes()]))
        return
    config = load_settings(overrides or [])
    made = make_plan(config, prompt, response)
    layout = made.size.layout
    terminal.print(
        f"[bold]{config.recipe}[/bold]: {report.parameters(report.total_parameters(made.size.model))} parameters on {report.machines(made.size)}, "
        f"tensor x pipeline x data parallel {layout.tensor} x {layout.pipeline} x {layout.data}"
    )
    terminal.print(report.parts_table(made))
    terminal.print(report.time_table(made))
    for sentence in report.sentences(config, made):
        terminal.print(sentence, soft_wrap=True)
    if not made.fits:
        raise typer.Exit(1)


@app.command()
def doctor(overrides: Overrides = None) -> None:
    """Says what this machine offers: versions, devices, every rung of the jail, the executor (with executor=... the one a run would have), the cache."""
    from azr_nemo.settings import load_settings
    from azr_nemo.trainer.doctor import report

    config = load_settings(overrides or [], default_recipe=False)
    table = Table("what", "found", title="azr-nemo doctor")
    for name, value in report(config.executor):
        table.add_row(name, value)
    Terminal().print(table)
