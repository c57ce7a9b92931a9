"""Decides `model.dtype=auto`, once for a run: its warm-started weights, its checkpoints and all that follows are in one dtype."""

from dataclasses import replace

from azr_nemo.errors import UserError
from azr_nemo.megatron.platform import choose_dtype, choose_platform
from azr_nemo.settings.compose import from_yaml
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.checkpoints import Checkpoint


def with_dtype(config: RunConfig, checkpoint: Checkpoint | None) -> RunConfig:
    """The configuration with `model.dtype` decided: by the checkpoint of a resumed run, whatever machine it is on now, else by the hardware.

    Ranks decide alone, so those of a new CPU run must be on like machines. Raises UserError when a resumed run is asked for another dtype.
    """
    asked = config.model.dtype
    if checkpoint:
        dtype = from_yaml(checkpoint.path / "config.yaml").model.dtype
        if asked not in ("auto", dtype):
            raise UserError(f"model.dtype={asked}, but {checkpoint.path} was written with {dtype}: leave model.dtype=auto to go on")
    else:
        dtype = str(choose_dtype(asked, choose_platform(config.platform))).removeprefix("torch.")
    return replace(config, model=replace(config.model, dtype=dtype))
