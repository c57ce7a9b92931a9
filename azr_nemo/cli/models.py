"""`azr-nemo convert`: models between the formats."""

from pathlib import Path
from typing import Annotated

import typer

from azr_nemo.cli.app import app


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="a Hugging Face directory, a checkpoint, a run, a .nemo file or its folder: found out by looking")
    ],
    out: Annotated[Path, typer.Argument(help="what to write; it must not exist. A name that ends in .nemo gives a file, another a folder")],
    to: Annotated[str, typer.Option(help="hf | megatron | nemo")] = "hf",
    verify: Annotated[bool, typer.Option("--verify", help="read it again; compare every tensor, and the logits with transformers")] = False,
    max_shard_gb: Annotated[float, typer.Option(help="size of a file of weights, which is also what is held in memory")] = 5.0,
    like: Annotated[Path | None, typer.Option(help="for NeMo's weights: the Hugging Face directory of the same model")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="with --to nemo: where NeMo finds the tokenizer; SOURCE unless told")] = None,
) -> None:
    """Converts a model between Hugging Face, Megatron and NeMo, one tensor at a time, on the CPU."""
    from azr_nemo.conversion.convert import convert as convert_model
    from azr_nemo.trainer.checkpoints import Checkpoints

    if (source / "checkpoints").is_dir() and (found := Checkpoints(source, keep=1).find("auto")):
        source = found.path
    convert_model(source, out, to, verified=verify, shard_bytes=int(max_shard_gb * 1e9), like=like, tokenizer=tokenizer)
