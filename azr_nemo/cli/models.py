"""`azr-nemo convert`: models between the formats."""

from pathlib import Path
from typing import Annotated

import typer

from azr_nemo.cli.app import app
from azr_nemo.errors import UserError


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="a run's checkpoint directory, or with --to megatron a Hugging Face directory")],
    out: Annotated[Path, typer.Argument(help="the directory to write; it must not exist")],
    to: Annotated[str, typer.Option(help="hf | megatron")] = "hf",
) -> None:
    """Converts a checkpoint to a Hugging Face directory, or back."""
    from azr_nemo.megatron.convert import checkpoint_to_hf, hf_to_checkpoint

    if to not in ("hf", "megatron"):
        raise UserError(f"--to {to} is unknown: choose hf or megatron")
    (checkpoint_to_hf if to == "hf" else hf_to_checkpoint)(source, out)
    print(out)
