"""veRL's FSDP checkpoints as a source, those of the original too: `actor/model_world_size_N_rank_R.pt`, in which rank R has its part of every tensor.

Such a file is a pickle, which can call whatever it names. torch.load(weights_only=True) calls nothing but what puts plain tensors together; the
classes of distributed tensors on the list below become passive records here, whichever version of torch wrote them, and any other name refuses
the file. The files are mapped, and a tensor is joined when it is asked for.
"""

import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from azr_nemo.conversion.pieces import Piece
from azr_nemo.conversion.source import Source
from azr_nemo.errors import UserError
from azr_nemo.megatron.finite_weights import require_finite
from azr_nemo.megatron.huggingface import EMBEDDING, HEAD, INVERSE_FREQUENCIES, read_companions, read_config

FILE = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
COMPANIONS, LATEST, WORLD = "huggingface", "latest_checkpointed_iteration.txt", "fsdp_config.json"
_TENSOR, _TENSOR_BEFORE = "torch.distributed.tensor.", "torch.distributed._tensor."  # the second is of torch before 2.5


class _Record:
    """Stands in for an object of a file: keeps what the pickle says of it and does nothing."""

    def __new__(cls, *arguments: Any) -> "_Record":
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        return

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # attributes, and those of slots
            self.__dict__.update(part if isinstance(part, dict) else {})


class _Shard(_Record):
    """Placement on one dimension of the mesh: each of its ranks has a part of the tensor, cut along `dim`."""

    dim = 0


class _Replicate(_Record):
    """Placement on one dimension of the mesh: its ranks all have the same."""


class _Distributed(Tensor):
    """Stands in for a DTensor: has the whole tensor's shape and dtype, and this rank's part."""

    part: Tensor
    spec: Any

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TypeError("a part of a tensor is not a tensor")

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict) and "_local_tensor" in part:
                self.part, self.spec = part["_local_tensor"], part["_spec"]


_STAND_INS = [
    *((_Distributed, name) for name in (_TENSOR + "DTensor", _TENSOR + "_api.DTensor", _TENSOR_BEFORE + "api.DTensor")),
    *((_Shard, module + "placement_types.Shard") for module in (_TENSOR, _TENSOR_BEFORE)),
    *((_Replicate, module + "placement_types.Replicate") for module in (_TENSOR, _TENSOR_BEFORE)),
    *((_Record, f"{_TENSOR}_dtensor_spec.{name}") for name in ("DTensorSpec", "TensorMeta", "ShardOrderEntry")),
    *(
        (_Record, f"{_TENSOR_BEFORE}{module}.{name}")
        for module in ("placement_types", "_dtensor_spec")
        for name in ("DTensorSpec", "TensorMeta")
    ),
    *(
        (_Record, "torch.distributed." + name)
        for name in ("device_mesh.DeviceMesh", "_mesh_layout._MeshLayout", "_mesh_layout._FlatLayout")
    ),
]


def find_actor(path: Path) -> Path | None:
    """The folder of the policy's files: `path` itself, of a checkpoint its `actor/`, of a run that of its latest checkpoint. None if it is none."""
    steps = [path]
    if (path / LATEST).is_file():
        steps.append(path / f"global_step_{(path / LATEST).read_text(encoding='utf-8').strip()}")
    for folder in [folder for step in steps for folder in (step, step / "actor")]:
        if folder.is_dir() and any(FILE.fullmatch(file.name) for file in folder.iterdir()):
            return folder
    return None


@contextmanager
def open_verl_source(path: Path, like: Path | None = None) -> Iterator[Source]:
    """like: a Hugging Face directory whose configuration and tokenizer are the model's, for a checkpoint that lacks them.

    Raises UserError when a rank's file is missing or damaged, or holds anything but tensors, when the parts of a tensor do not fit together,
    and when the tensors are not those that the configuration implies.
    """
    actor = find_actor(path)
    assert actor is not None
    described = like or actor / COMPANIONS
    if not (described / "config.json").is_file():
        raise UserError(
            f"{described} has no config.json: say with --like which Hugging Face directory has the model's config.json and tokenizer"
        )
    config = read_config(described)
    shards = _Shards(actor)

    def load(piece: Piece) -> list[Tensor]:
        return [require_finite(shards.join(name, shape), name, actor) for name, shape in piece.names.items()]

    source = Source(path, "verl", config, read_companions(described), load)
    shards.refuse_others({name for piece in source.pieces for name in piece.names}, bool(config.tie_word_embeddings))
    yield source


class _Shards:
    """What the files of all ranks hold."""

    def __init__(self, actor: Path):
        self.actor = actor
        self.files = _files(actor)
        self.ranks = [_load(file) for file in self.files]
        for file, held in zip(self.files, self.ranks, strict=True):
            if held.keys() != self.ranks[0].keys():
                name = min(held.keys() ^ self.ranks[0].keys())
                raise UserError(f"{file} and {self.files[0].name} are not of one model: only one of them has a tensor {name}")

    def join(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The whole tensor. shape: what the configuration implies."""
        if name not in self.ranks[0]:
            raise UserError(f"{self.actor} has no tensor {name}: its files do not match its config.json")
        parts = [held[name] for held in self.ranks]
        if all(isinstance(part, _Distributed) for part in parts):
            return self._placed(name, parts)
        if any(isinstance(part, _Distributed) for part in parts):
            raise UserError(f"{self.actor}: the tensor {name} is distributed in some of its files and whole in others")
        if all(part.shape == shape for part in parts):  # every rank has all of it
            if not all(torch.equal(part, parts[0]) for part in parts[1:]):
                raise UserError(f"{self.actor}: the tensor {name} differs between its ranks, though each has all of it")
            return parts[0]
        return self._cat(name, parts, 0)

    def _placed(self, name: str, parts: list[_Distributed]) -> Tensor:
        """A distributed tensor. Of ranks that have the same part, the first is read."""
        placements = parts[0].spec.placements
        cut = [axis for axis, placement in enumerate(placements) if isinstance(placement, _Shard)]
        if len(cut) > 1 or not all(type(placement) in (_Shard, _Replicate) for placement in placements):
            raise UserError(
                f"{self.actor}: the tensor {name} is cut along more than one dimension of the ranks: only FSDP with and without DDP is read"
            )
        places: dict[int, Tensor] = {}
        for part in parts:
            places.setdefault(_coordinate(part)[cut[0]] if cut else 0, part.part)
        if sorted(places) != list(range(len(places))):
            raise UserError(f"{self.actor}: of the tensor {name} a part is missing")
        whole = self._cat(name, [places[place] for place in sorted(places)], placements[cut[0]].dim if cut else 0)
        if whole.shape != parts[0].shape:
            raise UserError(
                f"{self.actor}: the parts of the tensor {name} together have the shape {tuple(whole.shape)}, but the files say {tuple(parts[0].shape)}"
            )
        return whole

    def _cat(self, name: str, parts: list[Tensor], dim: int) -> Tensor:
        try:
            return torch.cat(parts, dim) if len(parts) > 1 else parts[0]
        except (RuntimeError, IndexError):
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise UserError(f"{self.actor}: the parts of the tensor {name} do not fit together: {shapes}") from None

    def refuse_others(self, used: set[str], tied: bool) -> None:
        """Raises UserError for a tensor that the model does not have: it would be lost in silence. A tied head is written beside the embedding."""
        others = sorted(name for name in self.ranks[0] if name not in used and not name.endswith(INVERSE_FREQUENCIES))
        if tied and HEAD in others:
            if not all(torch.equal(_part(held[HEAD]), _part(held[EMBEDDING])) for held in self.ranks if EMBEDDING in held):
                raise UserError(
                    f'{self.actor} holds a {HEAD} that is not its {EMBEDDING}, though its config.json ties the two: set "tie_word_embeddings": false '
                    "in config.json to keep this head"
                )
            others.remove(HEAD)
        if others:
            hint = ": merge the adapters into the model with veRL before converting it" if "lora_" in "".join(others) else ""
            raise UserError(f"{self.actor} holds a tensor {others[0]}, which the model that its config.json describes does not have{hint}")


def _files(actor: Path) -> list[Path]:
    """One a rank, in order. Raises UserError unless they are those of one world, all of them."""
    found = {(int(match[1]), int(match[2])): file for file in actor.iterdir() if (match := FILE.fullmatch(file.name))}
    worlds = sorted({world for world, _ in found})
    if len(worlds) > 1:
        raise UserError(
            f"{actor} holds the files of {' and of '.join(map(str, worlds))} ranks: move those that are of another run, or of an earlier start of it, away"
        )
    world = worlds[0]
    missing = next((rank for rank in range(world) if (world, rank) not in found), None)
    if missing is not None or len(found) != world:
        wanted = f"model_world_size_{world}_rank_{missing}.pt" if missing is not None else f"ranks 0 to {world - 1} alone"
        raise UserError(
            f"{actor} has the files of {len(found)} of {world} ranks: expected {wanted}; bring the files of all nodes into one folder"
        )
    try:
        said = json.loads((actor / WORLD).read_text(encoding="utf-8"))["world_size"] if (actor / WORLD).is_file() else world
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{actor / WORLD} cannot be read ({error}): remove it, the files' names say how many ranks there are") from error
    if said != world:
        raise UserError(f"{actor / WORLD} says that there were {said} ranks, but the files are those of {world}")
    return [found[world, rank] for rank in range(world)]


def _load(file: Path) -> dict[str, Tensor]:
    """A rank's parts by name, mapped. Raises UserError for a file that is damaged or holds anything else."""
    serialization = torch.serialization
    before = serialization.get_safe_globals()
    serialization.clear_safe_globals()  # what else this process allows itself is not for strangers' files
    try:
        serialization.add_safe_globals(_STAND_INS)
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it names {named[1]}" if named else " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} is not read: {what}, but a file of weights needs nothing but tensors, plain or of FSDP as DTensors"
        ) from error
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, AssertionError, OSError) as error:
        raise UserError(f"{file} cannot be read ({' '.join(str(error).split())[:200]}): copy it again, it may be cut short") from error
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)
    if not isinstance(held, dict) or not held or not all(isinstance(name, str) and _is_sound(part) for name, part in held.items()):
        raise UserError(f"{file} is not what veRL writes: expected tensors by name")
    return held


def _is_sound(part: object) -> bool:
    """Whether it is a tensor, or what a DTensor says of itself."""
    if not isinstance(part, _Distributed):
        return isinstance(part, Tensor)
    placements = getattr(getattr(part, "spec", None), "placements", None)
    return (
        isinstance(getattr(part, "part", None), Tensor)
        and isinstance(placements, tuple)
        and all(isinstance(placement.dim, int) for placement in placements if isinstance(placement, _Shard))
        and len(_coordinate(part)) == len(placements)
    )


def _coordinate(part: _Distributed) -> tuple[int, ...]:
    """The rank's place in the mesh, a number a dimension; empty when the file does not say."""
    told = getattr(getattr(part.spec, "mesh", None), "_coordinate_on_dim", None)
    return tuple(told) if isinstance(told, tuple | list) and all(isinstance(place, int) for place in told) else ()


def _part(part: Tensor) -> Tensor:
    return part.part if isinstance(part, _Distributed) else part
