"""Hugging Face directories: reading tensors by name without loading the model, and writing a directory from the weight stream."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from azr_nemo.errors import UserError

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
# What belongs to a model besides its weights: configuration, tokenizer, chat template.
COMPANIONS = (".json", ".jinja", ".txt", ".model")

# What transformers raises for a config.json that is damaged or contradicts itself.
CONFIG_ERRORS = (ValueError, KeyError, TypeError, OSError, getattr(hub_errors, "StrictDataclassError", ValueError))


def read_config(model_dir: Path) -> PretrainedConfig:
    """The configuration of a Hugging Face directory. Raises UserError when there is none."""
    if not (model_dir / "config.json").is_file():
        raise UserError(f"{model_dir} is not a Hugging Face model: it has no config.json")
    try:
        return AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    except CONFIG_ERRORS as error:
        raise UserError(f"{model_dir / 'config.json'} cannot be read: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def open_weights(model_dir: Path) -> Iterator[Callable[[str], Tensor]]:
    """Gives `get(name) -> tensor`, which reads one tensor of the directory's safetensors files (memory-mapped, nothing else is loaded).

    Raises UserError when the directory has no such files, when one is damaged, and, from `get`, for a tensor that is not in them.
    """
    files = sorted({model_dir / name for name in _index(model_dir).values()}) or sorted(model_dir.glob("*.safetensors"))
    if not files:
        raise UserError(f"{model_dir} has no *.safetensors: convert the model with save_pretrained(..., safe_serialization=True)")
    with contextlib.ExitStack() as stack:
        where = {}
        for file in files:
            try:
                handle = stack.enter_context(safe_open(file, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise UserError(f"{file} cannot be read ({error}): fetch the model again") from error
            where.update(dict.fromkeys(handle.keys(), handle))

        def get(name: str) -> Tensor:
            if name not in where:
                raise UserError(f"{model_dir} has no tensor {name}: its files do not match its config.json")
            return where[name].get_tensor(name)

        yield get


@contextlib.contextmanager
def open_hf(model_dir: Path, config: PretrainedConfig) -> Iterator[Iterator[tuple[str, Tensor]]]:
    """The weight stream of a Hugging Face directory, as `tensor_names` lists it. Raises UserError as `open_weights` does."""
    names = tensor_names(model_dir, config)
    with open_weights(model_dir) as get:
        yield ((name, get(name)) for name in names)


def tensor_names(model_dir: Path, config: PretrainedConfig) -> list[str]:
    """The names of the directory's tensors, but for what is computed from the configuration and for a head that is the embedding."""
    names = sorted(_index(model_dir)) or sorted(name for file in model_dir.glob("*.safetensors") for name in _names_in(file))
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    return [name for name in names if name not in tied and not name.endswith("rotary_emb.inv_freq")]


def _names_in(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as handle:
            return list(handle.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({error}): fetch the model again") from error


def _index(model_dir: Path) -> dict[str, str]:
    path = model_dir / INDEX
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}): fetch the model again") from error


def save_hf(
    stream: Iterable[tuple[str, Tensor]], config: PretrainedConfig, tokenizer_dir: Path, out: Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes a Hugging Face directory: safetensors (with an index when there are several), config.json, tokenizer and generation settings.

    At most one shard of tensors is held at a time. Written beside `out` and renamed; raises UserError when `out` exists or cannot be
    written.
    """
    with written_aside(out) as aside:
        aside.mkdir()
        dtype = write_shards(stream, aside, shard_bytes)
        copy_companions(tokenizer_dir, config, dtype, aside)


@contextlib.contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """Gives a path beside `out` for a file or a directory to be made, renamed to `out` in the end and removed when anything went wrong.

    Raises UserError when `out` exists or what is written inside fails for lack of space or permission.
    """
    if out.exists():
        raise UserError(f"{out} already exists: choose another name")
    aside = out.with_name(f".{out.name}.partial")
    try:
        _remove(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.rename(out)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the model to {out}: {error}") from error
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def write_shards(stream: Iterable[tuple[str, Tensor]], folder: Path, shard_bytes: int) -> torch.dtype:
    """Writes the stream as safetensors files of at most shard_bytes, and their index; the dtype of the last tensor."""
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    size = total = 0
    dtype = torch.float32

    def flush() -> None:
        nonlocal size
        shards.append(list(pending))
        save_file(pending, folder / f"{len(shards)}.safetensors", metadata={"format": "pt"})
        pending.clear()
        size = 0

    for name, tensor in stream:
        if pending and size + tensor.nbytes > shard_bytes:
            flush()
        # The stream's tensors may be views of the model, which safetensors refuses and the next step changes.
        pending[name] = tensor.detach().to("cpu", copy=True).contiguous()
        size, total, dtype = size + tensor.nbytes, total + tensor.nbytes, tensor.dtype
    flush()
    if len(shards) == 1:
        (folder / "1.safetensors").rename(folder / "model.safetensors")
        return dtype
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"{number}.safetensors").rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    (folder / INDEX).write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n", encoding="utf-8"
    )
    return dtype


def copy_companions(source: Path, config: PretrainedConfig, dtype: torch.dtype, out: Path) -> None:
    """Copies what belongs to a model besides its weights; config.json is kept but for the weights' dtype."""
    write_companions(read_companions(source), config, dtype, out)


def read_companions(source: Path) -> dict[str, bytes]:
    """config.json, tokenizer, chat template and generation settings of a Hugging Face directory, by name."""
    return {
        file.name: file.read_bytes()
        for file in sorted(source.iterdir())
        if file.is_file() and file.suffix in COMPANIONS and file.name != INDEX
    }


def write_companions(files: dict[str, bytes], config: PretrainedConfig, dtype: torch.dtype, out: Path) -> None:
    """Writes them; a config.json among them is kept as its author wrote it, since other versions of transformers name things otherwise."""
    for name, content in files.items():
        (out / name).write_bytes(content)
    if "config.json" in files:
        written = json.loads(files["config.json"])
        for key in {"dtype", "torch_dtype"} & written.keys() or {"dtype"}:
            written[key] = str(dtype).removeprefix("torch.")
        (out / "config.json").write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        config.save_pretrained(out)
        # transformers 4 and whoever reads as it does know these three by other names, and would take a default without a word.
        written = json.loads((out / "config.json").read_text(encoding="utf-8"))
        rope = written.get("rope_parameters") or {"rope_type": "default"}
        written["rope_theta"] = rope.get("rope_theta", 10000.0)
        written["dtype"] = written["torch_dtype"] = str(dtype).removeprefix("torch.")
        if rope["rope_type"] != "default":
            written["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
        (out / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
