"""Run as 2 or 4 ranks: the distributed optimizer in each layout of so many ranks, its state saved, resumed and loaded at every other one.

sharded_optimizer_job.py OUT DTYPE MODEL_DIR ...
"""

import sys
from pathlib import Path

import fused_adam
import torch
from tiny_models import EchoRollout, run_config, training_batch
from torch import Tensor

import azr_nemo.rollout
from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint
from azr_nemo.megatron.huggingface import read_config
from azr_nemo.megatron.platform import choose_platform
from azr_nemo.megatron.weight_stream import export_weights

LAYOUTS: dict[int, dict[str, dict[str, int]]] = {
    2: {"dp2": {}, "tp2": {"tensor_parallel": 2, "sequence_parallel": True}, "pp2": {"pipeline_parallel": 2}},
    4: {"tp2dp2": {"tensor_parallel": 2}, "pp2dp2": {"pipeline_parallel": 2}},
}


def make(model_dir: Path, dtype: str, layout: dict[str, int], sharded: bool = True) -> Actor:
    config = run_config(dtype, distributed_optimizer=sharded, **layout)
    config.optim.eps = 1e-3
    platform = choose_platform("cpu")
    distributed.start(platform, config.engine.tensor_parallel, config.engine.pipeline_parallel, 120)
    return Actor(config, read_config(model_dir), platform, model_dir)


def weights(actor: Actor) -> dict[str, Tensor]:
    return {name: tensor.float().clone() for name, tensor in export_weights(actor.model, actor.hf_config)}


def apart(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def layouts(model_dir: Path, dtype: str, out: Path) -> None:
    """Exactly the same after a resume; from another layout's checkpoint the same weights, and the same next step up to the order of sums."""
    ours = LAYOUTS[distributed.world_size()]
    following: dict[str, Tensor] = {}
    for name, layout in ours.items():
        actor = make(model_dir, dtype, layout)
        for seed in (0, 1):
            actor.update(training_batch(seed=seed))
        saved = weights(actor)
        save_checkpoint(actor, model_dir, out / name)
        actor.update(training_batch(seed=2))
        following = weights(actor)
        load_checkpoint(actor, out / name)
        assert apart(weights(actor), saved) == 0, f"{name}: other weights after a resume"
        actor.update(training_batch(seed=2))
        assert apart(weights(actor), following) == 0, f"{name}: another step after a resume, by {apart(weights(actor), following)}"
        for other in ours:
            if (out / other).exists() and other != name:
                load_checkpoint(actor, out / other)
                save_checkpoint(actor, model_dir, out / f"{other}-by-{name}")
    if distributed.rank() == 0:
        torch.save(following, out / "following.pt")


if __name__ == "__main__":
    azr_nemo.rollout.make_rollout = EchoRollout  # type: ignore[attr-defined]
    fused_adam.install()
    folder, kind, *models = sys.argv[1:]
    for model in models:
        layouts(Path(model), kind, Path(folder) / Path(model).name)
    distributed.stop()
