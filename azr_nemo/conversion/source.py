"""A model opened for reading, whatever its format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.conversion.pieces import HEAD, Piece, pieces
from azr_nemo.conversion.stored import StoredTensor
from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import Architecture, read_architecture
from azr_nemo.megatron.finite_weights import require_finite

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass
class Source:
    """kind: `hf`, `megatron`, `nemo` or `verl`. companions: the files beside the weights (config.json, tokenizer, generation settings), by name.

    load: gives the Hugging Face tensors of a piece in their order; they may share memory with the file.
    """

    path: Path
    kind: str
    config: PretrainedConfig
    companions: dict[str, bytes]
    load: Callable[[Piece], list[Tensor]]

    @cached_property
    def architecture(self) -> Architecture:
        return read_architecture(self.config)

    @cached_property
    def pieces(self) -> list[Piece]:
        return pieces(self.architecture)

    @cached_property
    def dtype(self) -> torch.dtype:
        """That of the first tensor, which is every tensor's. Raises UserError when it cannot be converted."""
        dtype = self.load(self.pieces[0])[0].dtype
        if dtype not in DTYPES:
            raise UserError(f"the weights in {self.path} are {dtype}: expected one of {', '.join(map(str, DTYPES))}")
        return dtype

    def read(self, piece: Piece) -> list[Tensor]:
        """The piece's Hugging Face tensors. Raises UserError for one whose shape or dtype is not the model's."""
        tensors = self.load(piece)
        for (name, shape), tensor in zip(piece.names.items(), tensors, strict=True):
            if tuple(tensor.shape) != shape:
                raise UserError(f"the model's tensor {name} has shape {tuple(tensor.shape)}, but its config.json implies {shape}")
            if tensor.dtype != self.dtype:
                raise UserError(
                    f"the model's tensor {name} is {tensor.dtype}, others are {self.dtype}: save the model in one dtype before converting it"
                )
        return tensors

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face name, tensor), in the order of the layers."""
        for piece in self.pieces:
            yield from zip(piece.names, self.read(piece), strict=True)

    def get(self, name: str) -> Tensor:
        """One tensor by its Hugging Face name."""
        piece = self._by_name[name]
        return self.read(piece)[list(piece.names).index(name)]

    @cached_property
    def _by_name(self) -> dict[str, Piece]:
        return {name: piece for piece in self.pieces for name in piece.names}


def megatron_loader(tensors: dict[str, StoredTensor], prefix: str, origin: Path) -> Callable[[Piece], list[Tensor]]:
    """Reads pieces from Megatron's global tensors; `prefix` stands before every key. Layers may also be stored one by one."""

    def load(piece: Piece) -> list[Tensor]:
        for key in filter(None, (piece.key, piece.alias)):
            if prefix + key in tensors:
                full = tensors[prefix + key].read(piece.layer)
                break
            single = key.replace("layers.", f"layers.{piece.layer}.", 1)
            if piece.layer is not None and prefix + single in tensors:
                full = tensors[prefix + single].read()
                break
        else:
            raise UserError(f"{origin} has no tensor {prefix}{piece.key}: it does not hold the model that its configuration describes")
        if full.dim() != len(piece.shape) or full.shape[1:] != piece.shape[1:] or full.size(0) < piece.shape[0]:
            raise UserError(
                f"{origin}: its tensor {prefix}{piece.key} has shape {tuple(full.shape)}, but its configuration implies {piece.shape}"
            )
        require_finite(full, f"{prefix}{piece.key}" if piece.layer is None else f"{prefix}{piece.key}, layer {piece.layer},", origin)
        # More rows than the model's are a vocabulary's padding; for anything else split() would give tensors of a wrong shape, which is told.
        return piece.split(full[: piece.shape[0]] if piece.key.endswith(("word_embeddings.weight", "output_layer.weight")) else full)

    return load


def refuse_unknown(tensors: dict[str, StoredTensor], prefix: str, wanted: list[Piece], origin: Path) -> None:
    """Raises UserError for a tensor of the model that no piece reads: it would be lost in silence."""
    known, layers = set(), 1 + max((piece.layer for piece in wanted if piece.layer is not None), default=-1)
    for piece in wanted:
        for key in filter(None, (piece.key, piece.alias)):
            known |= {prefix + key, prefix + key.replace("layers.", f"layers.{piece.layer}.", 1)}
            stacked = tensors.get(prefix + key)
            if piece.layer == 0 and stacked is not None and stacked.shape[0] != layers:
                raise UserError(f"{origin}: its tensor {stacked.key} has {stacked.shape[0]} layers, but its configuration says {layers}")
    for key in tensors:
        if key not in known and not key.startswith("optimizer."):
            tied = "; it ties the head to the embedding, so say there that it does not" if key == prefix + HEAD else ""
            raise UserError(f"{origin} holds a tensor {key}, which the model that its configuration describes does not have{tied}")
