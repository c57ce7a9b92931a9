"""`azr-nemo plan | doctor`: what a run needs, and what a machine offers to it."""

import os
import sys
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
    from azr_nemo.planning import report
    from azr_nemo.planning.plan import make_plan
    from azr_nemo.settings.compose import recipes
    from azr_nemo.trainer.settings import load_settings

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
    from azr_nemo.doctor.finding import State, table
    from azr_nemo.doctor.report import about_a_run, examine
    from azr_nemo.trainer.settings import load_settings

    config = load_settings(overrides or [], default_recipe=False)
    if os.environ.get("RANK", "0") != "0":
        ranks.serve(config, seconds, bound)
        return
    findings = list(examine(config, about_a_run(overrides or []), seconds, bound))
    (Terminal() if sys.stdout.isatty() else Terminal(width=160)).print(table(findings))
    sys.stdout.flush()
    if any(finding.state == State.ERROR for finding in findings):
        raise typer.Exit(1)
