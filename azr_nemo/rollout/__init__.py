"""Rollout engines: whatever can take over the trainer's weights and sample token ids. `make_rollout` chooses one by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import RolloutEngine
from azr_nemo.rollout.stops import Decode
from azr_nemo.settings.schema import RolloutConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig  # takes seconds to import, and settings alone need none


def _silent(text: str) -> None:
    """Where nobody hears how a start goes."""


@dataclass(frozen=True)
class Setup:
    """What an engine is made of. config: the settings `rollout`. eos_ids: tokens that end a sample, each of them. decode: the text of token ids,
    which requests with stop strings need. log, note: the file that a server of its own writes, and what hears how its start goes."""

    config: RolloutConfig
    hf_config: "PretrainedConfig"
    dtype: torch.dtype
    eos_ids: list[int]
    device: torch.device
    decode: Decode | None = None
    log: Path | None = None
    note: Callable[[str], None] = _silent


def _torch(s: Setup) -> RolloutEngine:
    from azr_nemo.rollout.torch.torch_rollout import TorchRollout

    return TorchRollout(s.hf_config, s.dtype, s.eos_ids, s.device, s.config.max_batch_rows, s.decode)


def _transformers(s: Setup) -> RolloutEngine:
    from azr_nemo.rollout.transformers import TransformersRollout

    return TransformersRollout(s.hf_config, s.dtype, s.eos_ids, s.device, s.config.max_batch_rows, s.decode)


def _trtllm(s: Setup) -> RolloutEngine:
    from azr_nemo.rollout.trtllm import TrtllmRollout

    return TrtllmRollout(s.hf_config, s.dtype, s.eos_ids, s.device, s.config, s.decode)


def _vllm(s: Setup) -> RolloutEngine:
    from azr_nemo.rollout.vllm.vllm_rollout import VllmRollout

    return VllmRollout(s.hf_config, s.dtype, s.eos_ids, s.device, s.config, s.decode, s.log, s.note)


# Every engine by the name that `rollout.name` gives it, of engine=megatron.
ROLLOUTS: dict[str, Callable[[Setup], RolloutEngine]] = {"torch": _torch, "transformers": _transformers, "trtllm": _trtllm, "vllm": _vllm}


def make_rollout(
    config: RolloutConfig,
    hf_config: "PretrainedConfig",
    dtype: torch.dtype,
    eos_ids: list[int],
    device: torch.device,
    decode: Decode | None = None,
    log: Path | None = None,
    note: Callable[[str], None] = _silent,
) -> RolloutEngine:
    """The engine called `config.name`, without weights: call `refit` before `generate`. The arguments are those of Setup.

    Raises UserError for an unknown name, or a model that the engine cannot decode.
    """
    if config.name not in ROLLOUTS:
        raise UserError(f"rollout.name is {config.name!r}: choose one of {', '.join(ROLLOUTS)}")
    return ROLLOUTS[config.name](Setup(config, hf_config, dtype, eos_ids, device, decode, log, note))
