import pytest
import torch

from azr_nemo.errors import UserError
from azr_nemo.megatron.platform import choose_platform, set_threads


def test_cuda_literals_mean_the_cpu_only_inside_the_scope() -> None:
    before = torch.cuda.current_device
    with choose_platform("cpu").scope(), choose_platform("cpu").scope():
        assert torch.zeros(2, device="cuda").device.type == "cpu"
        assert torch.ones(1).cuda().device.type == "cpu"
        assert torch.ones(1).type() == "torch.cuda.FloatTensor"
        assert torch.ones(1).type(torch.float64).dtype == torch.float64
        assert str(torch.cuda.current_device()) == "cpu"
    assert torch.cuda.current_device is before
    assert torch.ones(1).type() == "torch.FloatTensor"


def test_the_scope_ends_when_its_body_fails() -> None:
    before = torch.cuda.current_device
    with pytest.raises(ZeroDivisionError), choose_platform("cpu").scope():
        raise ZeroDivisionError
    assert torch.cuda.current_device is before


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_platform("auto").device.type == "cpu"
    with pytest.raises(UserError, match="platform=cuda, but torch sees no CUDA device: use platform=cpu"):
        choose_platform("cuda")
    with pytest.raises(UserError, match="platform=tpu is not known"):
        choose_platform("tpu")


def test_threads_are_shared_by_the_machines_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(3) == torch.get_num_threads() == 3
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
        assert set_threads(0) == 1
    finally:
        torch.set_num_threads(before)
