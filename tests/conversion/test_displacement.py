"""benchmarks/displacement.py: changes of the weights since the base, in float32 and as they are stored, and what runs share of them."""

import sys
from dataclasses import dataclass

import pytest
import torch

from azr_nemo.conversion.convert import convert
from azr_nemo.conversion.run_checkpoint import open_slices
from azr_nemo.conversion.stored import StoredTensor
from azr_nemo.errors import UserError
from azr_nemo.settings.compose import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))  # as the scripts themselves find the others
import displacement

sys.path.pop(0)


@dataclass
class Moved:
    """A float32 weight that the optimizer has moved since the stored one."""

    stored: StoredTensor
    by: float

    def read(self, layer: int | None = None) -> torch.Tensor:
        return self.stored.read(layer).float() + self.by


def test_changes_that_rounding_takes_away_are_seen_in_float32_and_opposite_ones_have_the_cosine_minus_one(source, tmp_path, monkeypatch):
    base = source("qwen2-untied", torch.bfloat16)
    by = {"up": 2**-16, "down": -(2**-15)}  # exact in float32 beside any weight
    for name in by:
        convert(base, tmp_path / name, "megatron")

    def with_masters(path, stack):
        tensors = open_slices(path, stack)
        return {displacement.MASTERS + key: Moved(stored, by[path.name]) for key, stored in tensors.items()}

    monkeypatch.setattr(displacement, "open_slices", with_masters)
    found, numbers = displacement.products(base, [tmp_path / name for name in by])
    torch.testing.assert_close(found[:2, :2] / numbers, torch.tensor([[1.0, -2.0], [-2.0, 4.0]]).double() * 2**-32, rtol=1e-5, atol=0)
    assert not found[2:].any(), "what is stored has not moved"
    lines = displacement.table(list(by), found, numbers).split("\n")
    assert [line.split(" | ")[:3] for line in lines[2:4]] == [["| up", "1.53e-05", "0.00e+00"], ["| down", "3.05e-05", "0.00e+00"]]
    assert lines[-1] == "| up | -1.00 |"


def test_a_checkpoint_without_float32_weights_is_refused_in_a_sentence(source, checkpoint):
    with pytest.raises(UserError, match=r"has no float32 weights .*only a run in bfloat16 keeps them"):
        displacement.products(source(), [checkpoint])
