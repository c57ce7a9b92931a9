"""`azr-nemo convert`: what a path holds is found out by looking, and written in the asked-for format, whole or not at all."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from azr_nemo.conversion.adapters import write_peft
from azr_nemo.conversion.hugging_face import Progress, open_hf_source, write_hf
from azr_nemo.conversion.nemo_archive import CONFIG, WEIGHTS, open_nemo_source, write_nemo
from azr_nemo.conversion.run_checkpoint import open_checkpoint_source, open_slices, write_checkpoint
from azr_nemo.conversion.source import Source
from azr_nemo.conversion.verl_fsdp import find_actor, open_verl_source
from azr_nemo.errors import UserError
from azr_nemo.file_hashes import compare_recorded
from azr_nemo.megatron.huggingface import SHARD_BYTES, written_aside
from azr_nemo.observe.console import Console

# What a model is written as; veRL's checkpoints are only read.
FORMATS = {"hf": "a Hugging Face directory", "megatron": "a checkpoint of this project", "nemo": "NeMo's"}
KINDS = {**FORMATS, "verl": "a checkpoint of veRL"}


def convert(
    source: Path,
    out: Path,
    to: str,
    *,
    verified: bool = False,
    shard_bytes: int = SHARD_BYTES,
    like: Path | None = None,
    tokenizer: str | None = None,
    card: str | None = None,
    console: Console | None = None,
) -> None:
    """Writes the model at `source` to `out` as `to` (hf, megatron, nemo).

    At most one shard of weights (hf, megatron) or one tensor (nemo) is in memory beside what is mapped. verified: also reads it again and
    compares it, tensor by tensor and by logits. like: see open_nemo_source and open_verl_source. tokenizer: what a .nemo says of its tokenizer,
    else `like` or `source`. card: what README.md says, beside a Hugging Face directory's files.
    Raises UserError for whatever is wrong with source, out or disk; then nothing is left at `out`.
    """
    if to == "peft":
        _write_adapters(source, out, console)
        return
    if to not in FORMATS:
        raise UserError(f"--to {to} is unknown: choose {', '.join(FORMATS)}, or peft for a run's adapters alone")
    if out.exists():
        raise UserError(f"{out} already exists: choose another name")
    if shard_bytes < 1:
        raise UserError("--max-shard-gb must be more than 0")
    if (source / "nemo" / CONFIG).is_file():  # a checkpoint of engine=aligner has more beside it
        compare_recorded(source, "nemo")
        source = source / "nemo"
    kind = detect(source)
    if kind == to:
        raise UserError(f"{source} is already {FORMATS[to]}: choose another --to")
    if like is not None and kind not in ("nemo", "verl"):
        raise UserError(f"--like is for weights of NeMo or veRL without a configuration, but {source} is {KINDS[kind]}: leave it out")
    started = time.monotonic()
    with console or Console() as view, OPENERS[kind](source, like) as opened:
        tensors = sum(len(piece.names) for piece in opened.pieces)
        with written_aside(out) as aside:
            with view.phase(f"to {to}", total=tensors) as phase:
                _write(opened, aside, to, out, shard_bytes, tokenizer or str((like or source).resolve()), phase.advance)
            if card is not None:
                (aside / "README.md").write_text(card, encoding="utf-8")
            if verified:
                # Builds Megatron's model, which NeMo's environment, with its older Megatron, cannot; the rest runs there too.
                from azr_nemo.conversion.verify import LOGITS, verify

                with view.phase("verify", total=tensors + LOGITS) as phase, OPENERS[to](aside, None) as written:
                    view.note(verify(opened, written, phase.advance))
        size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.rglob("*")) if file.is_file())
        said = str(opened.dtype).removeprefix("torch.")
        view.note(f"{out}: {FORMATS[to]}, {tensors} tensors in {said}, {size / 1e6:.1f} MB, {time.monotonic() - started:.1f} s")


def _write_adapters(source: Path, out: Path, console: Console | None) -> None:
    if not (source / "weights").is_dir():
        raise UserError(f"--to peft is for a run with adapters, or one of its checkpoints, which {source} is not")
    with console or Console() as view:
        tensors = write_peft(source, out, open_slices)
        view.note(f"{out}: a PEFT directory, {tensors} tensors")


def _write(opened: Source, aside: Path, to: str, out: Path, shard_bytes: int, tokenizer: str, progress: Progress) -> None:
    if to == "hf":
        write_hf(opened, aside, shard_bytes, progress)
    elif to == "megatron":
        write_checkpoint(opened, aside, shard_bytes, progress)
    else:
        write_nemo(opened, aside, out.suffix == ".nemo", tokenizer, progress)


def detect(path: Path) -> str:
    """`hf`, `megatron`, `nemo` or `verl`, by what is there. Raises UserError when nothing is, or something else."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give a model's directory or a .nemo file")
    if path.is_file():
        if path.suffix in (".nemo", ".tar", ".gz", ".tgz"):
            return "nemo"
        raise UserError(f"{path} is a file: expected a .nemo file, or the directory of a model")
    if find_actor(path) is not None:
        return "verl"
    has = {entry.name for entry in path.iterdir()}
    if "model" in has or ("weights" in has and "context" not in has):
        return "megatron"
    if has & {CONFIG, WEIGHTS, "context", "metadata.json"}:
        return "nemo"
    if "config.json" in has:
        return "hf"
    raise UserError(
        f"{path} holds no model: expected a Hugging Face directory (config.json), a checkpoint (weights/, model/), NeMo's "
        f"({CONFIG}, {WEIGHTS}/), or veRL's (actor/model_world_size_N_rank_R.pt)"
    )


@contextlib.contextmanager
def _open_hf(path: Path, like: Path | None) -> Iterator[Source]:
    with open_hf_source(path) as source:
        yield source


@contextlib.contextmanager
def _open_megatron(path: Path, like: Path | None) -> Iterator[Source]:
    with open_checkpoint_source(path) as source:
        yield source


Opener = Callable[[Path, Path | None], contextlib.AbstractContextManager[Source]]
OPENERS: dict[str, Opener] = {"hf": _open_hf, "megatron": _open_megatron, "nemo": open_nemo_source, "verl": open_verl_source}
