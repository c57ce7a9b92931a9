"""Whether weights are finite numbers: asked after every update, and wherever weights are loaded, saved or converted."""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from azr_nemo.errors import UserError

LARGEST_GROWTH = 10.0  # of the weights' norm in one update; training moves it by hundredths
# What a sum is fast in; anything else is added up in float32.
SUMMED = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Diverged(UserError):
    """An update left weights that are not finite, or ruined. They must not replace anything."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether there is neither nan nor infinity in them; one pass over the memory, no copy, and one wait for the device.

    A sum is finite only where every element is. It may overflow where all are: that alone needs the slower look.
    """
    found = [tensor.detach() if tensor.dtype in SUMMED else tensor.detach().float() for tensor in tensors]
    if not found or torch.stack([tensor.sum().float() for tensor in found]).isfinite().all():
        return True
    return all(bool(tensor.isfinite().all()) for tensor in found)


def require_finite(tensor: Tensor, name: str, origin: Path | str) -> Tensor:
    """The tensor itself. Raises UserError naming it and where it comes from when it is not finite."""
    if not all_finite([tensor]):
        raise UserError(f"the tensor {name} of {origin} is not finite (it holds nan or infinity): go back to what was saved before")
    return tensor


class Growth:
    """By what factor an update made a rank's weights larger, as their norm; infinite when it left one that is not finite.

    Weights whose squares overflow count as such: the next normalisation squares what they make. Finite ones may be ruined as well, a model
    that one step of a rate of 1 has moved computes nothing any more, and must not replace a good checkpoint either.
    """

    def __init__(self, parameters: Iterable[Tensor]):
        self._parameters = list(parameters)
        self._norm = self._measure()

    def update(self) -> float:
        """Since the time before."""
        before, self._norm = self._norm, self._measure()
        growth = self._norm / (max(before, 1.0) if math.isfinite(before) else 1.0)
        return growth if math.isfinite(growth) else math.inf

    def _measure(self) -> float:
        """One pass over the memory, no copy, and one wait for the device."""
        flat = [parameter.detach().reshape(-1) for parameter in self._parameters]
        return math.sqrt(float(torch.stack([torch.dot(values, values).float() for values in flat]).sum()))


def require_growth(growth: float, setting: str, lr: float) -> None:
    """Raises Diverged when an update at this learning rate, which `setting` decides, made the weights larger than LARGEST_GROWTH, on any rank."""
    if growth > LARGEST_GROWTH:
        what = f"are {growth:.3g} times as large" if math.isfinite(growth) else "are no longer finite"
        raise Diverged(f"the weights {what} after the update with {setting}={lr:g}, so nothing of it was saved: lower {setting}")


def way_back(error: Diverged, step: int, good: Path | None) -> str:
    """The sentence that ends the run. good: the checkpoint to go on from."""
    return f"step {step}: {error} and give the same command again, it goes on from {good}, the last good checkpoint"
