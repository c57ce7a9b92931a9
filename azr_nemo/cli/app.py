"""The root of the command line and the arguments that commands share. Heavy imports stay inside the commands, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Absolute Zero self-play. Errors that the user can mend are one sentence and exit code 2.",
)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="recipe=NAME|FILE.yaml and overrides: optim.lr=1e-5")]
File = Annotated[Path, typer.Argument(metavar="FILE.jsonl")]
