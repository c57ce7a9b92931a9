"""A recipe's plan: its memory and time, whether it fits, and what is nearest to it that does."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from transformers import PretrainedConfig

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import check_layout, read_architecture
from azr_nemo.models.shape import model_shape
from azr_nemo.planning.memory import Memory, cache_bytes, memory, sampler_memory
from azr_nemo.planning.sizing import Sizing, ranks_of, sizing
from azr_nemo.planning.step_time import Hardware, StepTime, cpu, gpu, step_time
from azr_nemo.settings.schema import RunConfig

GPUS_GB = (40, 80, 141)
MOST_NODES = 64
Change = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a recipe needs. recipe: its name. hardware: one of its ranks'. memory: of the rank that needs most of those that train. sampler: of one
    that only samples, where there are such."""

    recipe: str
    size: Sizing
    hardware: Hardware
    memory: Memory
    time: StepTime
    sampler: Memory | None = None

    @property
    def peak(self) -> int:
        """Bytes of the rank that needs most of all."""
        return max(self.memory.peak, self.sampler.peak if self.sampler else 0)

    @property
    def fits(self) -> bool:
        return fits(self.size)

    def fits_gpu(self, memory_gb: int) -> bool:
        """Whether a rank fits a GPU of this size, cut as it is."""
        return fits(replace(self.size, capacity=memory_gb * 10**9))


def make_plan(config: RunConfig, mean_prompt: int = 0, mean_response: int = 0, shape: PretrainedConfig | None = None) -> Plan:
    """The plan of a recipe for its `cluster`. mean_prompt, mean_response: tokens, 0 for a quarter of the limits. shape: the model's, when at hand.

    Raises UserError for a model without a shape and for a layout that the model, or the number of GPUs, cannot be cut into.
    """
    shape = shape or model_shape(config.model)
    size = _size(config, shape, mean_prompt, mean_response)
    hardware = gpu(config.cluster.gpu_memory_gb) if size.accelerated else cpu(width=size.width)
    sampler = sampler_memory(size) if size.samplers else None
    return Plan(config.recipe, size, hardware, memory(size), step_time(size, hardware), sampler)


def fits(size: Sizing) -> bool:
    """Whether the ranks that need most fit, and the pool of trtllm or vllm holds the longest sample."""
    sampler = sampler_memory(size)
    longest = cache_bytes(size, size.rollouts.prompt + size.rollouts.response)
    return max(memory(size).peak, sampler.peak) <= size.capacity and (not sampler.reserved or sampler.cache >= longest)


def nearest_that_fits(config: RunConfig, memory_gb: int = 0) -> tuple[Change, Plan] | None:
    """The fewest settings to change so that a recipe fits GPUs of `memory_gb` (0: its own), and its plan then; None when nothing does.

    Among equally few: the smallest changes, by factors of two, and then the fastest step. More nodes only when the cluster cannot do it.
    """
    shape = model_shape(config.model)
    if memory_gb:
        config = _changed(config, {"cluster.gpu_memory_gb": memory_gb})
    nodes = config.cluster.nodes
    while nodes <= max(MOST_NODES, config.cluster.nodes):
        grown = {} if nodes == config.cluster.nodes else {"cluster.nodes": nodes}
        if found := _fewest_changes(_changed(config, grown), shape):
            change, plan = found
            return {**change, **grown}, plan
        if not config.cluster.gpus_per_node:
            return None
        nodes *= 2
    return None


def _size(config: RunConfig, shape: PretrainedConfig, mean_prompt: int = 0, mean_response: int = 0) -> Sizing:
    check_layout(shape, config.engine.tensor_parallel, config.engine.pipeline_parallel, ranks_of(config))
    return sizing(config, read_architecture(shape), mean_prompt, mean_response)


def _fewest_changes(config: RunConfig, shape: PretrainedConfig) -> tuple[Change, Plan] | None:
    choices = _choices(config, shape)
    for count in range(len(choices) + 1):
        found: list[tuple[float, float, Change, Plan]] = []
        for keys in itertools.combinations(choices, count):
            for values in itertools.product(*(choices[key] for key in keys)):
                change = dict(zip(keys, values, strict=True))
                if plan := _try(_changed(config, change), shape):
                    found.append((_distance(config, change), plan.time.total, change, plan))
        if found:
            _, _, change, plan = min(found, key=lambda entry: entry[:2])
            return change, plan
    return None


def _try(config: RunConfig, shape: PretrainedConfig) -> Plan | None:
    """The plan if it can be cut this way and fits. A tensor-parallel group, of trainer and replica, stays within a node."""
    within = max(1, config.cluster.gpus_per_node)
    if config.engine.tensor_parallel > within or config.rollout.tensor_parallel > within:
        return None
    try:
        size = _size(config, shape)
    except UserError:
        return None
    return make_plan(config, shape=shape) if fits(size) else None


def _choices(config: RunConfig, shape: PretrainedConfig) -> dict[str, list[Any]]:
    """What may be changed, and to which values; never towards more memory."""
    engine, rollout, model = config.engine, config.rollout, read_architecture(shape)
    aligner = engine.name == "aligner"
    choices: dict[str, list[Any]] = {
        "engine.recompute": [] if engine.recompute else [True],
        "engine.micro_batch_tokens": [] if aligner else list(_halves(engine.micro_batch_tokens, 512)),
        "aligner.micro_batch": list(_halves(config.aligner.micro_batch, 1)) if aligner else [],
        "rollout.max_batch_rows": [] if rollout.name in ("trtllm", "vllm") else list(_halves(rollout.max_batch_rows, 1)),
    }
    if config.cluster.gpus_per_node:
        tensors = [n for n in (2, 4, 8) if n > engine.tensor_parallel]
        choices |= {
            "engine.distributed_optimizer": [] if engine.distributed_optimizer else [True],
            "engine.sequence_parallel": [] if engine.sequence_parallel else [True],
            "engine.tensor_parallel": tensors,
            "engine.pipeline_parallel": [n for n in (2, 4, 8, 16) if n > engine.pipeline_parallel and model.layers % n == 0],
            "rollout.name": [] if aligner or rollout.name in ("trtllm", "vllm") else ["trtllm"],
            "rollout.tensor_parallel": [n for n in (2, 4, 8) if n > rollout.tensor_parallel],
            "rollout.memory_fraction": [x for x in (0.5, 0.4, 0.3, 0.2, 0.1) if x < rollout.memory_fraction],
        }
    return {key: values for key, values in choices.items() if values}


def _halves(value: int, least: int) -> Iterator[int]:
    while (value := value // 2) >= least:
        yield value


def _distance(config: RunConfig, change: Change) -> float:
    """How far a change goes: factors of two of what is a number, 1 for each switch."""
    total = 0.0
    for key, value in change.items():
        group, name = key.split(".")
        before = getattr(getattr(config, group), name)
        total += 1 if isinstance(value, bool | str) else abs(math.log2(value / before))
    return total


def _changed(config: RunConfig, change: Change) -> RunConfig:
    for key, value in change.items():
        group, name = key.split(".")
        config = replace(config, **{group: replace(getattr(config, group), **{name: value})})
    return config
