"""Hugging Face directories: reading tensors by name without loading the model, and writing a directory from the weight stream."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import FAMILIES, inverse_frequencies
from azr_nemo.megatron.finite_weights import require_finite

INDEX = "model.safetensors.index.json"
EMBEDDING, HEAD, INVERSE_FREQUENCIES = "model.embed_tokens.weight", "lm_head.weight", "rotary_emb.inv_freq"
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


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file, of which only what is indexed is read. Indexing raises UserError for what is not finite."""

    weights: "Weights"
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weights.handles[self.name].get_slice(self.name).get_shape())

    def __getitem__(self, index: tuple[slice, ...]) -> Tensor:
        return require_finite(self.weights.handles[self.name].get_slice(self.name)[index], self.name, self.weights.model_dir)


@dataclass(frozen=True)
class Weights:
    """The tensors in the safetensors files of a Hugging Face directory, but for copies of what the model has anyway. handles: by name."""

    model_dir: Path
    handles: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return sorted(self.handles)

    def get(self, name: str) -> Tensor:
        """One tensor (memory-mapped, nothing else is loaded). Raises UserError when it is missing or not finite."""
        self._require(name)
        return require_finite(self.handles[name].get_tensor(name), name, self.model_dir)

    def part(self, name: str) -> StoredTensor:
        """One tensor, to be read in parts. Raises UserError when it is missing."""
        self._require(name)
        return StoredTensor(self, name)

    def _require(self, name: str) -> None:
        if name not in self.handles:
            hint = ', which may lack "tie_word_embeddings": true' if name == HEAD else ""
            raise UserError(f"{self.model_dir} has no tensor {name}: its files do not match its config.json{hint}")

    def refuse_others(self, used: Iterable[str]) -> None:
        """Raises UserError for a tensor that is not among the used ones: it would be lost in silence."""
        others = sorted(self.handles.keys() - set(used))
        if others:
            raise UserError(
                f"{self.model_dir} holds a tensor {others[0]}, which the model that its config.json describes does not have: correct config.json, "
                "or take the tensor out of the file"
            )


@contextlib.contextmanager
def open_weights(model_dir: Path, config: PretrainedConfig) -> Iterator[Weights]:
    """The weights of a Hugging Face directory whose configuration is `config`.

    Raises UserError when the directory has no such files, when one is damaged or would not be read, when a tensor is there twice, and when a
    tied head or the rotary frequencies are not what the configuration makes of them.
    """
    with contextlib.ExitStack() as stack:
        handles: dict[str, Any] = {}
        places: dict[str, Path] = {}
        for file in _files(model_dir):
            try:
                handle = stack.enter_context(safe_open(file, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise UserError(f"{file} cannot be read ({error}): fetch the model again") from error
            for name in handle.keys():  # noqa: SIM118 - not a dictionary
                if name in handles:
                    raise UserError(
                        f"the tensor {name} is both in {places[name]} and in {file.name}: remove the file that is not the model's"
                    )
                handles[name], places[name] = handle, file
        weights = Weights(model_dir, handles)
        for name in _copies(weights, config):
            del handles[name]
        yield weights


def _files(model_dir: Path) -> list[Path]:
    """Those of the index, or all where there is none."""
    listed = {model_dir / name for name in _index(model_dir).values()}
    found = set(model_dir.glob("*.safetensors"))
    # Some authors put the same weights beside them in a format of their own.
    others = sorted(file for file in found - listed if not file.name.startswith("consolidated"))
    if others and listed and listed <= found:
        raise UserError(f"{others[0]} is not among the files of {INDEX}, so its tensors would be left out: remove it, or the index")
    if not listed | found:
        raise UserError(f"{model_dir} has no *.safetensors: convert the model with save_pretrained(..., safe_serialization=True)")
    return sorted(listed or found)


def _copies(weights: Weights, config: PretrainedConfig) -> list[str]:
    """The names of tensors that say again what others or the configuration say. Raises UserError for one that says something else."""
    if config.model_type not in FAMILIES:  # rollout=transformers alone computes it, and knows what it has
        return [HEAD] if config.tie_word_embeddings and HEAD in weights.handles else []
    copies = []
    if config.tie_word_embeddings and HEAD in weights.handles:
        head, embedding = weights.get(HEAD), weights.get(EMBEDDING)
        if head.dtype != embedding.dtype or not torch.equal(head, embedding):
            raise UserError(
                f"{weights.model_dir} holds a {HEAD} that is not its {EMBEDDING}, though its config.json ties the two: set "
                f'"tie_word_embeddings": false in config.json to keep this head, or take it out of the file'
            )
        copies.append(HEAD)
    for name in weights.names:
        if name.endswith(INVERSE_FREQUENCIES):
            # Half precision keeps three digits of them, and nothing below 6e-8.
            stored, ours = weights.get(name).float(), inverse_frequencies(config)
            if stored.shape != ours.shape or not torch.allclose(stored, ours, rtol=1e-2, atol=1e-7):
                raise UserError(
                    f"{weights.model_dir} holds rotary frequencies, {name}, that are not those of its config.json: set rope_theta and the rope's "
                    "scaling there to what the model was trained with, or take the tensor out of the file"
                )
            copies.append(name)
    return copies


@contextlib.contextmanager
def open_hf(model_dir: Path, config: PretrainedConfig) -> Iterator[Iterator[tuple[str, Tensor]]]:
    """The weight stream of a Hugging Face directory. Raises UserError as `open_weights` does."""
    with open_weights(model_dir, config) as weights:
        yield ((name, weights.get(name)) for name in weights.names)


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
    """Writes them as `companion_files` has them."""
    for name, content in companion_files(files, config, dtype).items():
        (out / name).write_bytes(content)


def companion_files(files: dict[str, bytes], config: PretrainedConfig, dtype: torch.dtype) -> dict[str, bytes]:
    """What stands beside weights of this dtype. A config.json among the files is kept as its author wrote it, since other versions of
    transformers name things otherwise."""
    if "config.json" in files:
        written = json.loads(files["config.json"])
        for key in {"dtype", "torch_dtype"} & written.keys() or {"dtype"}:
            written[key] = str(dtype).removeprefix("torch.")
    else:
        # transformers 4 and whoever reads as it does know these three by other names, and would take a default without a word.
        written = json.loads(config.to_json_string())
        rope = written.get("rope_parameters") or {"rope_type": "default"}
        written["rope_theta"] = rope.get("rope_theta", 10000.0)
        written["dtype"] = written["torch_dtype"] = str(dtype).removeprefix("torch.")
        if rope["rope_type"] != "default":
            written["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return {**files, "config.json": (json.dumps(written, indent=2, ensure_ascii=False) + "\n").encode()}
