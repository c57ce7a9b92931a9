"""core_version_job.py save|load FOLDER MODEL_DIR: a checkpoint by the megatron-core that is on the path, or one of another taken up, plain and distributed
optimizer. Prints the version; fails where weights after loading, or after the next step, are not those that were saved beside it."""

import sys
from pathlib import Path

import fused_adam
import megatron.core
import torch
from packaging.version import Version
from sharded_optimizer_job import apart, make, weights
from tiny_models import training_batch

from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint


def main(mode: str, folder: Path, model_dir: Path) -> None:
    fused_adam.install()
    for sharded in (False, True):
        actor, saved = make(model_dir, "bfloat16", {}, sharded), folder / str(sharded)
        if mode == "save":
            actor.update(training_batch(seed=0))
            save_checkpoint(actor, model_dir, saved)
            expected = [weights(actor)]
            actor.update(training_batch(seed=1))
            torch.save([*expected, weights(actor)], folder / f"{sharded}.pt")
        else:
            at_save, after = torch.load(folder / f"{sharded}.pt", weights_only=True)
            load_checkpoint(actor, saved)
            assert apart(weights(actor), at_save) == 0
            actor.update(training_batch(seed=1))
            assert apart(weights(actor), after) == 0
    print(Version(megatron.core.__version__).public)  # below a git checkout it adds that checkout's commit


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
