"""`azr-nemo train | seed | summary | grade`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console as Terminal

from azr_nemo.cli.app import File, HelpSettings, Overrides, app, print_settings
from azr_nemo.cli.waiting import choose_waiting
from azr_nemo.errors import UserError


@app.command()
def train(
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="print the resolved configuration and stop")] = False,
    help_settings: HelpSettings = False,
) -> None:
    """Trains a recipe by self-play, or resumes it: azr-nemo train recipe=smollm2_135m-1n0g-megatron selfplay.steps=10"""
    if help_settings:
        from azr_nemo.planning.run_settings import REGISTERED
        from azr_nemo.settings.schema import RunConfig

        print_settings(RunConfig, REGISTERED, overrides)
        return
    if not dry_run:
        choose_waiting()
    from azr_nemo.planning.run_settings import load_settings
    from azr_nemo.settings.compose import as_yaml

    config = load_settings(overrides or [])
    if dry_run:
        from azr_nemo.planning.dry_run import describe

        print(as_yaml(config), end="")
        print("\n".join(f"# {line}" for line in describe(config)))
        return
    if config.engine.name == "aligner":
        from azr_nemo.aligner.run import train as run

        if config.model.architecture:  # else NeMo's model_config.yaml is the first to tell its shape
            from azr_nemo.megatron.distributed import world_size
            from azr_nemo.planning.dry_run import check_run

            check_run(config, world_size())
    else:
        from azr_nemo.trainer.loop import train as run

    raise typer.Exit(run(config))


@app.command()
def seed(
    overrides: Overrides = None,
    source: Annotated[list[Path] | None, typer.Option("--from", help="re-validate these seed files instead of prompting a model")] = None,
    out: Annotated[Path | None, typer.Option(help="write the valid tasks to this JSONL file")] = None,
    schema: Annotated[str, typer.Option(help="of --out: native | reference, or for others' trainers nemo_gym | verl")] = "native",
    report: Annotated[Path | None, typer.Option(help="with --from: write what became of every row to this JSON file")] = None,
) -> None:
    """Makes seed tasks: by prompting the recipe's model, or from files with --from, each program run again and checked.

    Files are checked within the limits of the recipe that is named, or within the defaults of all settings when none is.
    """
    if not source:
        choose_waiting()
    from azr_nemo.planning.run_settings import load_settings
    from azr_nemo.trainer.seed_command import seed_from_files, seed_from_model

    if report and not source:
        raise UserError("--report says what became of the rows of seed files: name them with --from FILE")
    config = load_settings(overrides or [], default_recipe=not source)
    table = seed_from_files(config, source, out, schema, report) if source else seed_from_model(config, out, schema)
    Terminal().print(table)


@app.command()
def summary(run_dir: Path, png: Annotated[Path | None, typer.Option(help="where the curves go; RUN_DIR/summary.png")] = None) -> None:
    """A table of a run and a picture of its curves."""
    from azr_nemo.observe.curves import plot
    from azr_nemo.observe.summary import summarise

    Terminal().print(summarise(run_dir).table())
    out = png or run_dir / "summary.png"
    plot(run_dir, out)
    print(f"curves: {out}")


@app.command()
def grade(file: File, timeout: Annotated[float, typer.Option(help="seconds of wall time a call")] = 5.0) -> None:
    """Grades rows {"task_type", "program", "input"|"inputs", "output"|"outputs", "answer"}; prints {"score", "reason"} for each."""
    from azr_nemo.json_lines import objects
    from azr_nemo.sandbox.configured import make_executor
    from azr_nemo.sandbox.executor import of_timeout
    from azr_nemo.selfplay.validation import Verifier, grade_rows
    from azr_nemo.settings.schema import ExecutorConfig

    limits = of_timeout(timeout)
    rows = objects(file, lambda number, reason: f"{file}:{number} is not a JSON object: {reason}")
    with make_executor(ExecutorConfig()) as executor:
        for row in grade_rows(((f"{file}:{number}", row) for number, row in rows), Verifier(executor, limits)):
            print(json.dumps(row))
