"""`azr-nemo convert | tokenizer`: models between the formats, and what is done to their tokenizers."""

from pathlib import Path
from typing import Annotated

import typer

from azr_nemo.cli.app import app, number
from azr_nemo.errors import UserError

tokenizers = typer.Typer(no_args_is_help=True, help="Changes to a model's tokenizer.")
app.add_typer(tokenizers, name="tokenizer")


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="a Hugging Face directory, a checkpoint, a run, a .nemo file or its folder, a checkpoint of veRL: found out by looking"
        ),
    ],
    out: Annotated[Path, typer.Argument(help="what to write; it must not exist. A name that ends in .nemo gives a file, another a folder")],
    to: Annotated[str, typer.Option(help="hf | megatron | nemo; peft: the adapters of a run alone")] = "hf",
    verify: Annotated[bool, typer.Option("--verify", help="read it again; compare every tensor, and the logits with transformers")] = False,
    max_shard_gb: Annotated[
        float, number("--max-shard-gb", "size of a file of weights, which is also what is held in memory", above=0, most=1e6)
    ] = 5.0,
    like: Annotated[Path | None, typer.Option(help="for NeMo's or veRL's weights: the Hugging Face directory of the same model")] = None,
    card: Annotated[bool, typer.Option("--card", help="with --to hf, of a run: write a model card beside the weights")] = False,
    evaluation: Annotated[list[Path] | None, typer.Option(help="with --card: an `out` directory of azr-nemo eval; may be repeated")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="with --to nemo: where NeMo finds the tokenizer; SOURCE unless told")] = None,
) -> None:
    """Converts a model between Hugging Face, Megatron and NeMo, one tensor at a time, on the CPU."""
    from azr_nemo.conversion.convert import convert as convert_model
    from azr_nemo.runs.checkpoints import Checkpoints

    if (source / "checkpoints").is_dir() and (found := Checkpoints(source, keep=1).find("auto")):
        source = found.path
    if evaluation and not card:
        raise UserError("--evaluation is for the card: add --card, or leave it out")
    text = None
    if card:
        from azr_nemo.evaluation.card import model_card, require_run

        if to != "hf":
            raise UserError(f"--card stands beside the weights of a Hugging Face directory: leave it out with --to {to}")
        require_run(source)
        text = model_card(source, out.name, evaluation or ())  # before the weights: a damaged file is told at once
    convert_model(source, out, to, verified=verify, shard_bytes=int(max_shard_gb * 1e9), like=like, tokenizer=tokenizer, card=text)


@tokenizers.command("strip-think")
def strip_think(
    directory: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="a Hugging Face directory; its tokenizer's files are rewritten")],
    undo: Annotated[bool, typer.Option("--undo", help="put the files back as they were")] = False,
) -> None:
    """Takes the tokens <think> and </think> out of a tokenizer, so that the tags are plain text: Qwen3's base models never learnt them."""
    from azr_nemo.models import think_tokens

    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory: give the model's Hugging Face directory")
    names = (think_tokens.undo_strip_think if undo else think_tokens.strip_think)(directory)
    print(f"{'restored' if undo else 'stripped'} {', '.join(names)} in {directory}")
