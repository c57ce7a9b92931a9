"""Writes a model's FSDP checkpoints as veRL does, from real ranks over gloo. Run by the fixture `verl_checkpoint`.

Arguments: HF_DIR ACTOR WORLD HOW, and again. HOW: fsdp2 (parts cut along the first dimension), fsdp2-dims (along the first that divides, as veRL's
own placement function), fsdp2-ddp (two replicas), fsdp1, cuda (as fsdp2, but the files say that the parts lay on GPUs).

What is as in veRL 0.9's fsdp_utils.py and fsdp_checkpoint_manager.py: the names of the mesh's dimensions, which modules are wrapped, how the state
is taken and saved, and the files beside it.
"""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardedStateDictConfig, ShardingStrategy, StateDictType, fully_shard
from torch.distributed.tensor import Shard
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


def dividing(world: int) -> Any:
    def place(parameter: nn.Parameter) -> Shard:
        return Shard(next((dim for dim, size in enumerate(parameter.shape) if size % world == 0), 0))

    return place


def sharded_state(model: nn.Module, mesh: DeviceMesh, how: str) -> dict[str, Any]:
    if how == "fsdp1":
        wrapped = FullyShardedDataParallel(
            model, device_mesh=mesh, sharding_strategy=ShardingStrategy.FULL_SHARD, use_orig_params=False, device_id=torch.device("cpu")
        )
        with FullyShardedDataParallel.state_dict_type(wrapped, StateDictType.SHARDED_STATE_DICT, ShardedStateDictConfig()):
            return wrapped.state_dict()
    more = {"shard_placement_fn": dividing(mesh.size())} if how == "fsdp2-dims" else {}
    for module in list(model.modules()):
        wanted = type(module).__name__ in model._no_split_modules
        if wanted or (isinstance(module, nn.Embedding) and not model.config.tie_word_embeddings):
            fully_shard(module, mesh=mesh, **more)
    fully_shard(model, mesh=mesh, **more)
    return model.state_dict()


def rank_main(rank: int, world: int, how: str, model: nn.Module, hf: str, actor: Path, meeting: Path) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(str(meeting), world), rank=rank, world_size=world)
    ddp = how == "fsdp2-ddp"
    mesh = init_device_mesh("cpu", (2, world // 2) if ddp else (world,), mesh_dim_names=("ddp", "fsdp") if ddp else ("fsdp",))
    state = sharded_state(model, mesh, how)
    if how == "cuda":
        torch.serialization.location_tag = lambda storage: "cuda:0"
    torch.save(state, actor / f"model_world_size_{world}_rank_{rank}.pt")
    if rank == 0:
        model.config.save_pretrained(actor / "huggingface")
        GenerationConfig.from_pretrained(hf).save_pretrained(actor / "huggingface")
        AutoTokenizer.from_pretrained(hf).save_pretrained(actor / "huggingface")
        (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1 if how == "fsdp1" else 2, "world_size": world}))
    dist.barrier()
    dist.destroy_process_group()


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    forks = multiprocessing.get_context("fork")  # the imports and the model are there once
    for hf, folder, size, how in zip(*[iter(arguments)] * 4, strict=True):
        actor, world = Path(folder), int(size)
        actor.mkdir(parents=True)
        model = AutoModelForCausalLM.from_pretrained(hf)
        ranks = [
            forks.Process(target=rank_main, args=(rank, world, how, model, hf, actor, actor / "meeting"), daemon=True)
            for rank in range(world)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
            assert rank.exitcode == 0, (how, rank.exitcode)
        (actor / "meeting").unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
