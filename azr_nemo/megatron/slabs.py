"""Slabs: rectangular parts of a state's tensors, which is all that a checkpoint holds; those of the distributed optimizer are cut here.

Megatron's distributed optimizer gives each data-parallel rank a flat range of its parameters' elements, laid end to end. Its own formats gather
those ranges before they are saved, which takes memory that a GPU has not got, or bind the file to the layout. A flat range of a row-major tensor is
a few boxes, though: the end of a row, whole rows, the start of a row. So every rank writes what it has, and reads what it needs, at any layout.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from megatron.core.dist_checkpointing.dict_utils import extract_matching_values, nested_values
from megatron.core.dist_checkpointing.mapping import ShardedBase, ShardedTensor, ShardedTensorFactory
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor


@dataclass(frozen=True)
class Slab:
    """A part of the tensor `key` of shape `whole`, from `offset` on. data: as many axes as `whole`, the live tensor's memory. padded: the tensor may
    end in rows that are there for the layout alone."""

    key: str
    offset: tuple[int, ...]
    whole: tuple[int, ...]
    data: Tensor
    padded: bool

    @classmethod
    def of(cls, tensor: ShardedTensor) -> Self:
        """All of a sharded tensor's own part."""
        # A layer's parameter is a slice of one tensor that stacks all layers: the stacking axes come first and have length 1 here.
        data = tensor.data.view((1,) * tensor.prepend_axis_num + tuple(tensor.local_shape))
        return cls(tensor.key, tuple(tensor.global_offset), tuple(tensor.global_shape), data, bool(tensor.allow_shape_mismatch))


def model_slabs(sharded_state: dict[str, Any], saving: bool) -> Iterator[Slab]:
    """This rank's parts of a state that Megatron has described. saving: without those that another rank is to write."""
    described, _ = extract_matching_values(sharded_state, lambda value: isinstance(value, ShardedBase))
    for entry in nested_values(described):
        for tensor in _parts(entry):
            if not (saving and any(tensor.replica_id)):
                yield Slab.of(tensor)


def _parts(place: ShardedBase) -> list[ShardedTensor]:
    """Megatron stores some parameters in parts: gate and up of a fused product are apart."""
    if isinstance(place, ShardedTensor):
        return [place]
    assert isinstance(place, ShardedTensorFactory), place
    return list(nested_values(place.build()))


def boxes(shape: tuple[int, ...], start: int, end: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(offset, shape) of the boxes that elements start .. end - 1 of a row-major tensor are made of, in their order."""
    if start >= end:
        return
    if len(shape) == 1:
        yield (start,), (end - start,)
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), end // row  # whole rows
    if first > last:
        yield from _in_row(shape, last, start, end)
        return
    if start < first * row:
        yield from _in_row(shape, first - 1, start, first * row)
    if first < last:
        yield (first, *[0] * (len(shape) - 1)), (last - first, *shape[1:])
    if last * row < end:
        yield from _in_row(shape, last, last * row, end)


def _in_row(shape: tuple[int, ...], row: int, start: int, end: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    before = row * math.prod(shape[1:])
    for offset, size in boxes(shape[1:], start - before, end - before):
        yield (row, *offset), (1, *size)


def optimizer_slabs(optimizer: MegatronOptimizer, model_state: dict[str, Any], saving: bool) -> Iterator[Slab]:
    """This rank's shards of the distributed optimizer's state: fp32 masters, where the model itself is not fp32, and Adam's moments.

    model_state: the model's sharded state, which says where in the whole model a parameter is. saving: without those that another tensor-parallel
    rank or stage has too, which is what each element is to be stored once by.
    """
    described, _ = extract_matching_values(model_state, lambda value: isinstance(value, ShardedBase))
    places = {entry.data: entry for entry in nested_values(described)}
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for bucket in (bucket for maps in part.gbuf_ranges for buckets in maps.values() for bucket in buckets):
            for parameter, ranges in bucket["param_map"].items():
                here = ranges["param"]
                for name, flat in _state(part, parameter).items():
                    yield from _slabs(places[parameter], f"optimizer.state.{name}.", flat.detach(), here.start, saving)


def _state(part: Any, parameter: Tensor) -> dict[str, Tensor]:
    """Flat tensors of the elements that this rank steps, by the names that they have in a checkpoint."""
    group, place = part.model_param_group_index_map[parameter]
    master = part.optimizer.param_groups[group]["params"][place]
    own = {} if master.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr() else {"fp32_param": master}
    return {**own, **{name: part.optimizer.state[master][name] for name in ("exp_avg", "exp_avg_sq")}}


def _slabs(place: ShardedTensor | ShardedTensorFactory, prefix: str, flat: Tensor, start: int, saving: bool) -> Iterator[Slab]:
    """The boxes of `flat`, which are the elements from `start` on of the parameter that `place` describes."""
    for part in _parts(place):
        if saving and any(part.replica_id[:2]):
            continue
        begin = part.data.storage_offset() - place.data.storage_offset()
        low, high = max(start, begin), min(start + flat.numel(), begin + part.data.numel())
        at = low - start
        for offset, shape in boxes(tuple(part.data.shape), low - begin, high - begin):
            data = flat[at : at + math.prod(shape)].view((1,) * part.prepend_axis_num + shape)
            at += data.numel()
            stacked, inner = part.global_offset[: part.prepend_axis_num], part.global_offset[part.prepend_axis_num :]
            place_in_whole = (*stacked, *(base + more for base, more in zip(inner, offset, strict=True)))
            yield Slab(prefix + part.key, place_in_whole, tuple(part.global_shape), data, bool(part.allow_shape_mismatch))
