"""`azr-nemo rollouts`: what the model wrote in a run, and what it got for it."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console as Terminal

from azr_nemo.cli.app import app
from azr_nemo.errors import UserError


@app.command()
def rollouts(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="a run's directory")],
    role: Annotated[str | None, typer.Option(help="propose | solve")] = None,
    phase: Annotated[str | None, typer.Option(help="propose | estimate | solve")] = None,
    task: Annotated[str | None, typer.Option(help="deduction | abduction | induction")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="what came of it, by class: ok (right, or a new task), wrong, malformed (no answer to be read), failed (no value: error, timeout, "
            "not_literal and the like), refused (by the checks, or a duplicate); or by name: right, wrong_value, error, timeout, duplicate, ..."
        ),
    ] = None,
    step: Annotated[int | None, typer.Option(help="of this step alone")] = None,
    contains: Annotated[str | None, typer.Option(metavar="TEXT", help="with this text in the prompt or the completion")] = None,
    limit: Annotated[int, typer.Option(min=0, help="at most so many; 0: all")] = 20,
    format: Annotated[str, typer.Option(help="text | json: one object a line, with everything in full")] = "text",
    full: Annotated[bool, typer.Option("--full", help="prompts in full, not their ends alone")] = False,
    out: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="with --to: the directory to write")] = None,
    to: Annotated[
        str | None, typer.Option(help="datasets: write all rollouts and tasks as Parquet with a card, instead of printing")
    ] = None,
    license: Annotated[str, typer.Option(help="with --to: of the data set, as hubs name them")] = "unknown",
) -> None:
    """Prints rollouts of a run, the latest step first: azr-nemo rollouts RUN --role propose --task induction --status error"""
    from azr_nemo.observe.jsonl import encode
    from azr_nemo.observe.rollout_listing import Wanted, find, text

    if to or out:
        from azr_nemo.observe.data_set import write_data_set

        if to != "datasets" or out is None:
            raise UserError("rollouts are written by `azr-nemo rollouts RUN --to datasets DIR`: give both the form and the directory")
        tasks, steps = write_data_set(run_dir, out, license)
        print(f"{out}: {tasks} tasks, rollouts of {steps} steps")
        return
    if format not in ("text", "json"):
        raise UserError(f"--format {format} is unknown: choose one of text, json")
    found = find(run_dir, Wanted(role, phase, task, status, step, contains))
    shown = islice(found, limit or None)
    if format == "json":
        for row in shown:
            print(encode(row))
        return
    terminal, count = Terminal(), 0
    for count, row in enumerate(shown, 1):  # noqa: B007
        terminal.print(text(row, full), soft_wrap=True, highlight=False)
    if not count:
        print("no rollout is all of that")
    elif limit and next(found, None):
        print(f"these are {limit}; there are more: --limit 0 prints all")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="directories of runs; several are laid over each other")],
    out: Annotated[Path | None, typer.Option(help="the file to write; report.html in the first run's directory")] = None,
    live: Annotated[bool, typer.Option("--live", help="serve it on 127.0.0.1 while the runs go on, instead of writing it")] = False,
    port: Annotated[int, typer.Option(help="of --live; any free one")] = 0,
) -> None:
    """Writes a run, or several, as one HTML page that needs no network: curves, tasks, answers, settings."""
    from azr_nemo.observe.report.blocks import blocks
    from azr_nemo.observe.report.page import page, write
    from azr_nemo.observe.report.read import Reader, names

    titles = names(runs)
    if live:
        if out:
            raise UserError("--live serves the report and writes no file: leave out --out, or --live")
        from azr_nemo.observe.report.live import serve

        serve(runs, titles, port, lambda sentence: print(sentence, flush=True))
        return
    if port:
        raise UserError("--port is of --live: add --live, or leave --port out")
    found = [Reader(path, name).read() for path, name in zip(runs, titles, strict=True)]
    to = out or runs[0] / "report.html"
    write(page(", ".join(titles), blocks(found)), to)
    print(to)
