"""NeMo's files as a source and as a target: a .nemo (a tar), its unpacked folder, or the folder of weights that training saves.

    model_config.yaml                            what MegatronGPTModel is built from
    model_weights/                               megatron-core's dist_checkpointing: `torch_dist` (NeMo's default) or `zarr`
    huggingface/                                 ours: config.json, tokenizer and generation settings; NeMo unpacks and ignores it

We write zarr, which has no pickled index and can be streamed; NeMo 2.1 reads it as well (megatron-core 0.10, strategies/tensorstore.py).
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from transformers import CONFIG_MAPPING, PretrainedConfig

from azr_nemo.conversion.archive import Archive, Writer, open_archive, write_archive
from azr_nemo.conversion.hugging_face import Progress
from azr_nemo.conversion.nemo_config import from_model_config, to_model_config
from azr_nemo.conversion.pieces import EMBEDDING, LAYERS, Piece
from azr_nemo.conversion.source import Source, megatron_loader, refuse_unknown
from azr_nemo.conversion.stored import StoredTensor
from azr_nemo.conversion.torch_dist import open_torch_dist
from azr_nemo.conversion.zarr import ZarrArray, open_zarr, rows_of_a_chunk
from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import inverse_frequencies, read_architecture
from azr_nemo.megatron.huggingface import COMPANIONS as SUFFIXES
from azr_nemo.megatron.huggingface import CONFIG_ERRORS, read_companions, read_config

CONFIG, WEIGHTS, COMPANIONS = "model_config.yaml", "model_weights", "huggingface"
PREFIXES = ("model.", "module.")  # MegatronGPTModel's and NeMo 2's
# Linear layers have a state of their own for FP8, which is empty; TransformerEngine and Megatron's own layers both ask for it when loading.
EXTRA_STATES = (
    "self_attention.linear_qkv",
    "self_attention.core_attention",
    "self_attention.linear_proj",
    "mlp.linear_fc1",
    "mlp.linear_fc2",
)
METADATA = {"sharded_backend": "zarr", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}


@contextmanager
def open_nemo_source(path: Path, like: Path | None = None) -> Iterator[Source]:
    """like: a Hugging Face directory whose configuration and tokenizer are the model's, for weights that lack them.

    Raises UserError when something is missing, damaged, not supported, or when `like` is another model.
    """
    archive = open_archive(path)
    folder = next((name for name in (WEIGHTS, "weights", "") if _join(name, "metadata.json") in archive.files), None)
    if folder is None:
        raise UserError(
            f"{path} has no {WEIGHTS}/metadata.json: expected weights that NeMo saved with dist_checkpointing; "
            "restore a file of the older per-rank format in NeMo and save it again"
        )
    tensors = _open_tensors(archive, folder)
    prefix = next((prefix for prefix in PREFIXES if prefix + EMBEDDING in tensors), None)
    if prefix is None:
        raise UserError(f"{path} has no tensor model.{EMBEDDING}: it does not hold a language model of megatron-core")
    config, companions = _describe(archive, like, tensors[prefix + EMBEDDING].shape[0])
    source = Source(path, "nemo", config, companions, megatron_loader(tensors, prefix, path))
    refuse_unknown(tensors, prefix, source.pieces, path)
    yield source


def _open_tensors(archive: Archive, folder: str) -> dict[str, StoredTensor]:
    try:
        backend = json.loads(archive.read(_join(folder, "metadata.json")))["sharded_backend"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{archive.path}: its {_join(folder, 'metadata.json')} is damaged ({error})") from error
    if backend == "zarr":
        return open_zarr(archive, folder)
    if backend == "torch_dist":
        return open_torch_dist(archive, folder)
    raise UserError(f"{archive.path}: its weights are stored as {backend}: expected torch_dist or zarr")


def _describe(archive: Archive, like: Path | None, rows: int) -> tuple[PretrainedConfig, dict[str, bytes]]:
    """The configuration, and the files beside it, from `like`, from what we put beside the weights, or from the tokenizer's directory."""
    described = _read_yaml(archive)
    found: dict[str, bytes] = {}
    if like is not None:
        config, found, where = read_config(like), read_companions(like), str(like)
    elif f"{COMPANIONS}/config.json" in archive.files:
        found = {name: archive.read(key) for name, key in archive.folder(COMPANIONS).items() if Path(name).suffix in SUFFIXES}
        config, where = _parse_config(archive, found["config.json"]), f"{archive.path}'s {COMPANIONS}/config.json"
    elif described is None:
        raise UserError(
            f"{archive.path} has no {CONFIG}: say with --like which Hugging Face directory has the model's config.json and tokenizer"
        )
    else:
        tokenizer = Path(str((described.get("tokenizer") or {}).get("type") or ""))
        if (tokenizer / "tokenizer_config.json").is_file():
            found = {name: content for name, content in read_companions(tokenizer).items() if name != "config.json"}
        return from_model_config(described, f"{archive.path}'s {CONFIG}", rows), found
    if described is not None:
        _compare(config, from_model_config(described, f"{archive.path}'s {CONFIG}", rows), where, f"{archive.path}'s {CONFIG}")
    return config, found


def _compare(config: PretrainedConfig, described: PretrainedConfig, where: str, origin: str) -> None:
    ours, theirs = asdict(read_architecture(config)), asdict(read_architecture(described))
    ours["rope"], theirs["rope"] = (inverse_frequencies(each).tolist() for each in (config, described))
    # A vocabulary may be padded, and training may shorten the sequences; neither changes the model.
    for name in ours:
        if name not in ("vocab", "positions") and ours[name] != theirs[name]:
            raise UserError(f"{where} says {name}={ours[name]}, but {origin} says {theirs[name]}: they are different models")


def _read_yaml(archive: Archive) -> DictConfig | None:
    if CONFIG not in archive.files:
        return None
    try:
        described = OmegaConf.create(archive.read(CONFIG).decode())
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{archive.path}: its {CONFIG} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(described, DictConfig):
        raise UserError(f"{archive.path}: its {CONFIG} cannot be read: it is no mapping")
    return described.model if isinstance(described.get("model"), DictConfig) else described


def _parse_config(archive: Archive, content: bytes) -> PretrainedConfig:
    try:
        values = json.loads(content)
        return CONFIG_MAPPING[values["model_type"]].from_dict(values)
    except CONFIG_ERRORS as error:
        raise UserError(f"{archive.path}: its {COMPANIONS}/config.json cannot be read: {' '.join(str(error).split())}") from error


def write_nemo(source: Source, path: Path, packed: bool, tokenizer: str, progress: Progress) -> None:
    """One tensor is held at a time. packed: a .nemo file rather than its folder. tokenizer: what NeMo is told to load it from.

    Raises UserError when NeMo would compute the model differently, OSError when it cannot be written.
    """
    a, dtype = source.architecture, source.dtype
    described = to_model_config(source.config, a, dtype, tokenizer)
    with write_archive(path, packed) as writer:
        writer.write(CONFIG, OmegaConf.to_yaml(OmegaConf.create(described)).encode())
        for name, content in source.companions.items():
            writer.write(f"{COMPANIONS}/{name}", content)
        if "config.json" not in source.companions:
            writer.write(f"{COMPANIONS}/config.json", source.config.to_json_string(use_diff=False).encode())
        _write_weights(source, writer, progress)
        writer.write(f"{WEIGHTS}/common.pt", _saved({}))
        writer.write(f"{WEIGHTS}/metadata.json", json.dumps(METADATA).encode())


def _write_weights(source: Source, writer: Writer, progress: Progress) -> None:
    layers = source.architecture.layers
    stacked: dict[str, ZarrArray] = {}
    for piece in source.pieces:
        _write_piece(source, piece, writer, stacked)
        progress(len(piece.names))
    for name in EXTRA_STATES:
        for layer in range(layers):
            writer.write(f"{WEIGHTS}/model.{LAYERS}{name}._extra_state/shard_{layer}_{layers}.pt", _saved(None))


def _write_piece(source: Source, piece: Piece, writer: Writer, stacked: dict[str, ZarrArray]) -> None:
    full, folder = piece.fuse(source.read(piece)), f"{WEIGHTS}/model.{piece.key}"
    if piece.layer is None:
        rows = rows_of_a_chunk(piece.shape, source.dtype)
        array = ZarrArray(writer, folder, piece.shape, source.dtype, rows)
        for index, part in enumerate(full.split(rows)):
            array.write(index, part)
        return
    if piece.key not in stacked:
        stacked[piece.key] = ZarrArray(writer, folder, (source.architecture.layers, *piece.shape), source.dtype, 1)
    stacked[piece.key].write(piece.layer, full)


def _saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
