"""A recipe's trainer on a pretended rank of its cluster: built, two updates, the weights exported, a snapshot taken; what it took, as JSON.

pretended_rank.py LAYERS RECIPE:STAGE [OVERRIDE ...] [-- RECIPE:STAGE ...]    LAYERS: of each pipeline stage, 0 for all of them; a line for each recipe
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the tests: how they start processes
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # fake tensors compile nothing

from pretended_device import PretendedGpu, on_pretended_gpu  # before torch

# isort: split
import contextlib
import itertools
import json
import sys
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pretended_te
import torch
from torch import Tensor

pretended_te.install()

import megatron.core.fusions.fused_bias_swiglu as swiglu  # noqa: E402
import megatron.core.tensor_parallel.random as megatron_random  # noqa: E402
from megatron.core.pipeline_parallel import p2p_communication  # noqa: E402

import azr_nemo.megatron.actor as actor_module  # noqa: E402
from azr_nemo.megatron import checkpoint, distributed  # noqa: E402
from azr_nemo.megatron.actor import Actor  # noqa: E402
from azr_nemo.megatron.architecture import Architecture, read_architecture  # noqa: E402
from azr_nemo.megatron.platform import Platform  # noqa: E402
from azr_nemo.megatron.weight_stream import export_weights  # noqa: E402
from azr_nemo.models.shape import model_shape  # noqa: E402
from azr_nemo.planning.memory import stage_memory  # noqa: E402
from azr_nemo.planning.parameters import total_parameters  # noqa: E402
from azr_nemo.planning.run_settings import load_settings  # noqa: E402
from azr_nemo.planning.sizing import MicroBatch, sizing  # noqa: E402
from azr_nemo.selfplay.exchange import TrainingBatch  # noqa: E402

PROMPT, RESPONSE = 1500, 2500


class Files:
    """Weights of the right shapes, and how many bytes of them were read."""

    def __init__(self, model: Architecture) -> None:
        self.model, self.read = model, 0

    def part(self, name: str) -> "Part":
        a, kind = self.model, name.split(".")[-2]
        queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
        rows = {
            "q_proj": queries, "k_proj": keys, "v_proj": keys, "o_proj": a.hidden, "gate_proj": a.ffn, "up_proj": a.ffn, "down_proj": a.hidden,
            "embed_tokens": a.vocab, "lm_head": a.vocab, "q_norm": a.head_dim, "k_norm": a.head_dim,
        }.get(kind, a.hidden)  # fmt: skip
        if name.endswith("bias") or kind.endswith("norm"):
            return Part(self, (rows,))
        return Part(self, (rows, {"o_proj": queries, "down_proj": a.ffn}.get(kind, a.hidden)))

    def refuse_others(self, used: set[str]) -> None:
        pass


class Part:
    def __init__(self, files: Files, shape: tuple[int, ...]) -> None:
        self.files, self.shape = files, shape

    def __getitem__(self, index: tuple[slice, ...]) -> Tensor:
        sizes = [len(range(*part.indices(size))) for part, size in zip(index, self.shape, strict=True)]
        found = torch.empty(sizes, dtype=torch.bfloat16)
        self.files.read += found.nbytes
        return found


def quiet_neighbours(gpu: PretendedGpu, tokens: int, hidden: int) -> None:
    """What Megatron hears from another stage: that its micro-batches are as long."""

    def shapes(self: Any, send_next: Any, send_prev: Any, receive_prev: Any, receive_next: Any) -> Any:
        gpu.reads["pipeline shapes"] += 1
        shape = [tokens, 1, hidden]
        return (shape if receive_prev else [0, 0, 0]), (shape if receive_next else [0, 0, 0])

    p2p_communication.P2PCommunicator._communicate_shapes = shapes
    torch.distributed.batch_isend_irecv = lambda operations: []  # type: ignore[assignment]


def as_the_kernels_do() -> None:
    """Compiled SwiGLU makes its result and nothing beside it."""
    swiglu.swiglu = lambda y: y.new_empty(*y.shape[:-1], y.shape[-1] // 2)
    swiglu.swiglu_back = lambda grad, y: torch.empty_like(y)
    megatron_random._set_cuda_rng_state = lambda *_, **__: None
    megatron_random._get_cuda_rng_state = lambda *_, **__: torch.zeros(16, dtype=torch.uint8)
    total = actor_module._total
    actor_module._total = lambda statistics, names: {**dict.fromkeys(total(statistics, names), 1.0), "tokens": 1.0}


def training_batch(rows: int, vocab: int) -> TrainingBatch:
    """Rows that differ: equal prompts would share a copy."""
    numbers = itertools.count()
    prompts = [(next(numbers) % vocab,) * PROMPT for _ in range(rows)]
    mask = torch.ones(rows, RESPONSE)
    return TrainingBatch(
        prompts,
        [(1,) * RESPONSE] * rows,
        -mask,
        mask,
        mask,
        torch.zeros(rows),
        torch.zeros(rows, dtype=torch.long),
        torch.full((rows,), 1_000_000),
    )


def measure(recipe: str, stage: int, layers: int, overrides: list[str]) -> dict[str, Any]:
    config = load_settings([f"recipe={recipe}", *overrides])
    engine, shape = config.engine, model_shape(config.model)
    if layers:
        shape.num_hidden_layers = layers * engine.pipeline_parallel
    ranks = config.cluster.nodes * config.cluster.gpus_per_node
    size = sizing(config, read_architecture(shape))
    files = Files(size.model)
    actor_module.open_weights = lambda *_: contextlib.nullcontext(files)  # type: ignore[assignment]
    as_the_kernels_do()
    found: dict[str, Any] = {"recipe": recipe, "stage": stage, "layers": shape.num_hidden_layers}
    with on_pretended_gpu(stage * ranks // engine.pipeline_parallel, ranks) as gpu:
        platform = Platform(torch.device("cuda", 0), "fake", transformer_engine=True)
        distributed.start(platform, engine.tensor_parallel, engine.pipeline_parallel)
        actor = Actor(config, shape, platform, Path("."))
        adapted = bool(config.model.lora.rank)  # adapters alone learn then, and are in no file
        weights = sum(parameter.nbytes for parameter in actor.model.parameters() if not (adapted and parameter.requires_grad))
        found |= {"weights": weights, "weights_read": files.read, "built_peak": gpu.peak}
        few, many = (training_batch(rows * size.layout.data, shape.vocab_size) for rows in (8, 16))
        packed = actor._pack(few.prompt_ids, few.response_ids, few.mask)
        tokens = max(batch.tokens.size(1) for batch in packed)
        cut = engine.tensor_parallel if engine.sequence_parallel else 1
        quiet_neighbours(gpu, tokens // cut, shape.hidden_size)
        found["updates"] = []
        for batch in (few, many):
            gpu.reset()
            actor.update(batch)
            count = len(actor._pack(batch.prompt_ids, batch.response_ids, batch.mask))
            found["updates"].append({"micro_batches": count, "peak": gpu.peak, "left": gpu.live, "reads": dict(gpu.reads)})
        gpu.reset()
        before = gpu.live
        for name, tensor in export_weights(actor.model, shape):
            assert tensor.device.type == "cuda", name
        found["refit"] = {"peak": gpu.peak - before, "collectives": dict(gpu.collectives), "sent": dict(gpu.sent)}
        del tensor
        gpu.reset()
        snapshot = checkpoint.take_snapshot(actor, Path("."), copy=True)
        host = sum(tensor.nbytes for tensor in snapshot.slices.tensors.values())
        found["snapshot"] = {"peak": gpu.peak - before, "host": host}
        learnt = max(len(batch.rows) for batch in packed)
    size = replace(size, batch=MicroBatch(tokens, learnt, PROMPT + RESPONSE - 1))
    planned = stage_memory(size, stage)
    whole = total_parameters(size.model) * size.width
    return {**found, "planned": {**asdict(planned), "capacity": size.capacity, "step": planned.step, "whole": whole}}


def main(words: list[str]) -> None:
    """Each recipe in a fork of this process, which has imported everything: a device is used once."""
    layers, *rest = words
    for is_break, group in itertools.groupby(rest, "--".__eq__):
        if is_break:
            continue
        place, *overrides = group
        recipe, _, stage = place.partition(":")
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        try:
            line = measure(recipe, int(stage), int(layers), overrides)
        except BaseException:
            line = {"recipe": recipe, "stage": int(stage), "error": traceback.format_exc()}
        print(json.dumps(line), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
