"""Checkpoints of the engine `aligner`: NeMo's weights and optimizer, and beside them what NeMo-Aligner would put into a file's name.

checkpoints/step_000010/{nemo/{model_config.yaml, model_weights/}, trainer.json, rng/, buffer.sqlite, config.yaml, state.json}

`nemo/` is a checkpoint folder as NeMo restores it and `azr-nemo convert` reads it. PPOTrainer's own state is parsed back from the checkpoint's
file name, as int32; here it is trainer.json, and the directory is written aside and renamed, so what is there is whole.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from azr_nemo.aligner.collectives import broadcast, gather_rows
from azr_nemo.aligner.ppo_actor import SelfPlayActor
from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written
from azr_nemo.runs.checkpoints import Checkpoints
from azr_nemo.selfplay.buffer import TaskBuffer

FOLDER, WEIGHTS, CONFIG, STATE = "nemo", "model_weights", "model_config.yaml", "trainer.json"


class CheckpointCallback:
    """Duck-typed as PPOTrainer's ckpt_callback. before, buffer and config are of rank 0: what is called first, what else is saved."""

    def __init__(self, actor: SelfPlayActor, strategy: Any, scheduler: Any, checkpoints: Checkpoints):
        self.actor, self.strategy, self.scheduler, self.checkpoints = actor, strategy, scheduler, checkpoints
        self.state: Callable[[], dict[str, int]] = dict  # PPOTrainer.state_dict
        self.before: Callable[[], None] = lambda: None
        self.buffer: TaskBuffer | None = None
        self.config = ""

    def custom_save(self, monitor_candidates: dict[str, Any], is_train_end: bool = False) -> None:
        """Saves the step that is done. Collective. Raises UserError on every rank when there is no place for it."""
        self.save(int(monitor_candidates["step"]))

    def save(self, step: int) -> None:
        if dist.get_rank():
            said = broadcast()
            if "failed" in said:
                raise UserError(said["failed"])
            self._save_part(Path(said["directory"]))
            return
        self.before()
        try:
            directory = self.checkpoints.begin(step)
        except UserError as error:
            broadcast({"failed": str(error)})
            raise
        broadcast({"directory": str(directory)})

        def write(directory: Path) -> dict[str, Written]:
            hashes = self._save_part(directory)
            OmegaConf.save(self.actor.cfg, directory / FOLDER / CONFIG)
            (directory / STATE).write_text(json.dumps(self.state()), encoding="utf-8")
            (directory / "config.yaml").write_text(self.config, encoding="utf-8")
            if self.buffer is not None:
                self.buffer.backup(directory / "buffer.sqlite")
            return hashes

        self.checkpoints.complete(step, write)

    def _save_part(self, directory: Path) -> dict[str, Written]:
        """Every rank's part, by megatron-core's dist_checkpointing, whose files the ranks then share to read for their hashes."""
        (directory / FOLDER).mkdir(exist_ok=True)
        (directory / "rng").mkdir(exist_ok=True)
        states = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
        save_file(states, directory / "rng" / f"rank_{dist.get_rank():05d}.safetensors")
        state = {
            "state_dict": self.actor.sharded_state_dict(),
            "optimizer_states": [optimizer_state(self.strategy, loading=False)],
            "lr_schedulers": [self.scheduler.state_dict()] if hasattr(self.scheduler, "state_dict") else [],
        }
        self.strategy.checkpoint_io.save_checkpoint(state, str(directory / FOLDER / WEIGHTS))
        dist.barrier()
        paths = sorted(path for path in directory.rglob("*") if path.is_file())[dist.get_rank() :: dist.get_world_size()]
        own = {str(path.relative_to(directory)): Written.read(path) for path in paths}
        said = gather_rows([list(json.dumps(own).encode())])
        return {name: Written(*file) for part in said for name, file in json.loads(bytes(part)).items()}


def optimizer_state(strategy: Any, loading: bool) -> dict[str, Any]:
    """The optimizer's state with every tensor's place in the whole model. A plain torch optimizer counts its steps in a tensor for each parameter,
    which belongs to no place; they are all equal and kept once, in the parameter groups."""
    from megatron.core.dist_checkpointing.optimizer import get_param_id_to_sharded_param_map, optim_state_to_sharding_state

    optimizer = strategy.lightning_module.optimizers(use_pl_optimizer=False)
    if not type(optimizer).__module__.startswith("torch.optim"):
        unsharded = None if loading else optimizer.state_dict()
        return strategy.optimizer_sharded_state_dict(unsharded_optim_state=unsharded, is_loading=loading)
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        _make_moments(optimizer)
    model = {name: part for name, part in strategy.lightning_module.sharded_state_dict().items() if not name.endswith("_extra_state")}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = optimizer.state_dict()
    steps = [float(entry["step"]) for entry in state["state"].values() if "step" in entry]
    optim_state_to_sharding_state(state, get_param_id_to_sharded_param_map(model, iter(parameters)), exclude_keys=("step",))
    for group in state["param_groups"]:
        group["steps"] = max(steps, default=0.0)
    return state


def _make_moments(optimizer: torch.optim.Optimizer) -> None:
    """Adam's state as it is before its first step, where there is none: NeMo's init_optimizer_states leaves out the count of steps."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not optimizer.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.zeros(()), **zeros}


def restore(actor: SelfPlayActor, strategy: Any, scheduler: Any, path: Path) -> dict[str, int]:
    """Optimizer, schedule and random state of a checkpoint whose weights the actor already has. Collective. Returns PPOTrainer's state.

    Raises UserError when the checkpoint is not this engine's.
    """
    try:
        counters = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of engine=aligner ({error}): give resume=PATH of one, or another run_dir") from None
    optimizer = strategy.lightning_module.optimizers(use_pl_optimizer=False)
    wanted = {
        "state_dict": actor.sharded_state_dict(),
        "optimizer_states": [optimizer_state(strategy, loading=True)],
    }
    found = strategy.checkpoint_io.load_checkpoint(str(path / FOLDER / WEIGHTS), sharded_state_dict=wanted)
    state = found["optimizer_states"][0]
    if type(optimizer).__module__.startswith("torch.optim"):
        steps = [group.pop("steps", 0.0) for group in state["param_groups"]]
        for entry in state["state"].values():
            entry["step"] = torch.tensor(max(steps))
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    schedules = found.get("lr_schedulers", [])
    for schedule in schedules:
        scheduler.load_state_dict(schedule)
    if not schedules:  # then the settings say the rate: a run that diverged goes on with a lower one
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    own = path / "rng" / f"rank_{dist.get_rank():05d}.safetensors"
    if own.is_file():  # another layout has other ranks; sampling is seeded by the step anyway
        states = load_file(own)
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
    return counters
