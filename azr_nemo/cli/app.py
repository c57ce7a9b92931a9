"""The root of the command line and the arguments that commands share. Heavy imports stay inside the commands, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Any

import typer

from azr_nemo.settings.field import About, check_value

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Absolute Zero self-play. Errors that the user can mend are one sentence and exit code 2.",
)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="recipe=NAME|FILE.yaml and overrides: optim.lr=1e-5")]
File = Annotated[Path, typer.Argument(metavar="FILE.jsonl")]
HelpSettings = Annotated[
    bool, typer.Option("--help-settings", help="print the settings, or those that begin with the words that follow, and stop")
]


def print_settings(kind: Any, registered: Any, prefixes: list[str] | None) -> None:
    """What `--help-settings [PREFIX]...` prints. Raises UserError for a prefix that no setting has."""
    from azr_nemo.settings.listing import text

    for prefix in prefixes or [""]:
        print(text(kind, registered, prefix))


def number(option: str, help: str, **bounds: float) -> Any:
    """An option that is a number within bounds (see `settings.field.About`): typer's own let nan and infinities pass."""
    about = About(help, **bounds)  # type: ignore[arg-type]

    def checked(value: float) -> float:
        check_value(option, value, about)
        return value

    return typer.Option(help=f"{help} ({about.bounds()})", callback=checked)
