"""A run computes in one dtype from its first step to its last, chosen by the hardware that it began on."""

import pytest
import torch

from azr_nemo.errors import UserError
from azr_nemo.megatron import platform as platforms
from azr_nemo.runs.checkpoints import Checkpoint
from azr_nemo.settings.compose import as_yaml
from azr_nemo.settings.schema import ModelConfig, RunConfig
from azr_nemo.trainer.assembly import with_dtype


def asked(dtype):
    return RunConfig(platform="cpu", model=ModelConfig(path="x", dtype=dtype))


@pytest.fixture(params=[True, False], ids=["bfloat16-cpu", "plain-cpu"])
def fast(request, monkeypatch):
    monkeypatch.setattr(platforms, "multiplies_bfloat16", lambda platform: request.param)
    return request.param


def test_auto_is_what_the_hardware_multiplies_fast(fast):
    assert with_dtype(asked("auto"), None).model.dtype == ("bfloat16" if fast else "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_dtype_that_is_named_is_taken(fast, dtype):
    assert with_dtype(asked(dtype), None) == asked(dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_resumed_run_keeps_its_own(fast, dtype, tmp_path):
    (tmp_path / "config.yaml").write_text(as_yaml(asked(dtype)))
    assert with_dtype(asked("auto"), Checkpoint(tmp_path, 3)).model.dtype == dtype


def test_a_resumed_run_cannot_change_it(tmp_path):
    (tmp_path / "config.yaml").write_text(as_yaml(asked("bfloat16")))
    with pytest.raises(UserError, match=r"model\.dtype=float32, but .* was written with bfloat16: leave model\.dtype=auto"):
        with_dtype(asked("float32"), Checkpoint(tmp_path, 3))


def test_a_cpu_says_what_it_can_multiply(monkeypatch, tmp_path):
    cpu = platforms.choose_platform("cpu")
    for flags, expected in (("fpu avx2 avx512f", False), ("fpu avx512_bf16 umip", True), ("asimd bf16 i8mm", True)):
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
        monkeypatch.setattr(platforms, "CPU_INFO", tmp_path / "cpuinfo")
        assert platforms.multiplies_bfloat16(cpu) is expected
    monkeypatch.setattr(platforms, "CPU_INFO", tmp_path / "missing")
    assert platforms.choose_dtype("auto", cpu) is torch.float32
