"""Rollout engines: whatever can take over the trainer's weights and sample token ids. `make_rollout` chooses one by name."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PretrainedConfig

from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import RolloutEngine
from azr_nemo.rollout.stops import Decode
from azr_nemo.settings.schema import RolloutConfig

NAMES = ("torch", "transformers", "trtllm", "vllm")


def make_rollout(
    config: RolloutConfig,
    hf_config: PretrainedConfig,
    dtype: torch.dtype,
    eos_ids: list[int],
    device: torch.device,
    decode: Decode | None = None,
    log: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> RolloutEngine:
    """The engine called `config.name`, without weights: call `refit` before `generate`.

    eos_ids: tokens that end a sample, each of them. decode: the text of token ids, which requests with stop strings need.
    log, note: the file that a server of its own writes, and what hears how its start goes.
    Raises UserError for an unknown name, or a model that the engine cannot decode.
    """
    if config.name == "torch":
        from azr_nemo.rollout.torch.torch_rollout import TorchRollout

        return TorchRollout(hf_config, dtype, eos_ids, device, config.max_batch_rows, decode)
    if config.name == "transformers":
        from azr_nemo.rollout.transformers import TransformersRollout

        return TransformersRollout(hf_config, dtype, eos_ids, device, config.max_batch_rows, decode)
    if config.name == "trtllm":
        from azr_nemo.rollout.trtllm import TrtllmRollout

        return TrtllmRollout(hf_config, dtype, eos_ids, device, config, decode)
    if config.name == "vllm":
        from azr_nemo.rollout.vllm.vllm_rollout import VllmRollout

        return VllmRollout(hf_config, dtype, eos_ids, device, config, decode, log, note)
    raise UserError(f"rollout.name is {config.name!r}: choose one of {', '.join(NAMES)}")
