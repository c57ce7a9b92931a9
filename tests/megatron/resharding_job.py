"""Run under torchrun with two ranks: takes a checkpoint of one rank up in each layout, saves it as it is, and once more after a step.

resharding_job.py MODEL_DIR CHECKPOINT OUT
"""

import sys
from pathlib import Path

from tiny_models import EchoRollout, run_config, training_batch

import azr_nemo.rollout
from azr_nemo.megatron import distributed
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint
from azr_nemo.megatron.controller import Worker

LAYOUTS = {"tp2": {"tensor_parallel": 2}, "pp2": {"pipeline_parallel": 2}, "dp2": {}}

if __name__ == "__main__":
    azr_nemo.rollout.make_rollout = EchoRollout  # type: ignore[attr-defined]
    model_dir, checkpoint, out = map(Path, sys.argv[1:])
    for name, layout in LAYOUTS.items():
        config = run_config(**layout)
        config.optim.eps = 1e-3
        actor = Worker(config, model_dir).actor
        load_checkpoint(actor, checkpoint)
        save_checkpoint(actor, model_dir, out / name / "loaded")
        actor.update(training_batch(seed=7))
        save_checkpoint(actor, model_dir, out / name / "stepped")
    distributed.stop()
