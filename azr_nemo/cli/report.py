"""`azr-nemo report`."""

from pathlib import Path
from typing import Annotated

import typer

from azr_nemo.cli.app import app
from azr_nemo.errors import UserError


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
