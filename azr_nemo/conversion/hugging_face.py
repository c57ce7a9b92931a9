"""Hugging Face directories as a source and as a target."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from azr_nemo.conversion.pieces import Piece
from azr_nemo.conversion.source import Source
from azr_nemo.megatron.huggingface import open_weights, read_companions, read_config, write_companions, write_shards

Progress = Callable[[int], None]  # told how many tensors more are done


@contextmanager
def open_hf_source(path: Path) -> Iterator[Source]:
    """Raises UserError when the directory is no model, is damaged, or holds tensors that its config.json does not imply."""
    config = read_config(path)
    with open_weights(path, config) as weights:

        def load(piece: Piece) -> list[Tensor]:
            return [weights.get(name) for name in piece.names]

        source = Source(path, "hf", config, read_companions(path), load)
        weights.refuse_others(name for piece in source.pieces for name in piece.names)
        yield source


def write_hf(source: Source, folder: Path, shard_bytes: int, progress: Progress) -> None:
    """Holds one shard at a time. Raises OSError or SafetensorError when it cannot be written."""

    def stream() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in source.stream():
            yield name, tensor
            progress(1)

    folder.mkdir()
    write_shards(stream(), folder, shard_bytes)
    write_companions(source.companions, source.config, source.dtype, folder)
