"""Seconds of one step of self-play, from its operations and bytes: generation reads weights and keys and values for every token, prefill and
training multiply. Executing programs overlaps generation and is left out."""

import math
import os
from dataclasses import dataclass

from azr_nemo.planning.memory import FP32, cache_bytes, sampler_memory
from azr_nemo.planning.parameters import multiplied_parameters, stage_adapters, stage_parameters, total_parameters
from azr_nemo.planning.sizing import Sizing


@dataclass(frozen=True)
class Hardware:
    """One GPU, or one CPU machine. flops: of dense products a second, in bfloat16 (CPU: in the model's dtype). bandwidth: bytes a second of its
    memory. link, fabric: bytes a second to a neighbour in the node, and to another node. The rest are shares of these: training, prefill (products
    of many tokens), decode (products of a token a row), reading (memory, while decoding), talking (link and fabric). launch_s: of one layer of one
    decode step, by kernels that are started one by one. latency_s: of a small all-reduce."""

    name: str
    flops: float
    bandwidth: float
    link: float
    fabric: float
    training: float = 0.40
    prefill: float = 0.50
    decode: float = 0.50
    reading: float = 0.60
    talking: float = 0.70
    launch_s: float = 100e-6  # 20 kernels of 5 microseconds
    latency_s: float = 10e-6


A100 = Hardware("A100 40 GB", 312e12, 1.555e12, 300e9, 25e9)
H100 = Hardware("H100 80 GB", 989e12, 3.35e12, 450e9, 50e9)
H200 = Hardware("H200 141 GB", 989e12, 4.8e12, 450e9, 50e9)
# What a launch costs when the kernels of a whole step are one CUDA graph, as trtllm and vllm have them.
GRAPH_LAUNCH_S = 10e-6
CORE_FLOPS = 100e9  # of a core with AVX2 and two multiply-add units at 3.1 GHz, float32
BFLOAT16_FLOPS = 550e9  # of one with AVX512-BF16: what SmolLM2-135M's training step takes on it, at the same shares


def gpu(memory_gb: int) -> Hardware:
    """The GPU that a recipe with this much memory is taken to mean."""
    return A100 if memory_gb <= 48 else H100 if memory_gb <= 100 else H200


def cpu(cores: int = 0, width: int = 4) -> Hardware:
    """A CPU with so many cores, by default those that this process may use. width: bytes of the model's numbers; with 2 it is taken to have
    instructions for bfloat16, as one for which `model.dtype=auto` chooses them has."""
    cores = cores or len(os.sched_getaffinity(0))
    flops = cores * (BFLOAT16_FLOPS if width == 2 else CORE_FLOPS)
    return Hardware(f"CPU, {cores} cores", flops, 20e9, 5e9, 1e9, training=0.5, prefill=0.4, decode=0.22, launch_s=0.0, latency_s=100e-6)


# Of a replica in a process of its own: weights come in buckets of so many bytes, each a remote call and a reload of what it holds; waking maps its
# memory again. Estimates.
BUCKET_BYTES, HANDOVER_S, WAKING_S = 2**30, 0.1, 1.0
OPTIMIZER_BYTES = 34  # read and written for a parameter: gradient twice, master, both moments twice, weight


@dataclass(frozen=True)
class StepTime:
    """Seconds of each batch that is sampled, by the names of its phases. update: products, pipeline's idling and tensor-parallel traffic; gradients:
    their reduction and the optimizer. mfu: of the update, of the peak of all GPUs that train, recomputation not counted. beside: the next step is
    sampled while this one is learnt from."""

    batches: dict[str, float]
    update: float
    gradients: float
    refit: float
    sampled_tokens: int
    trained_tokens: int
    mfu: float
    beside: bool = False

    @property
    def generation(self) -> float:
        return sum(self.batches.values())

    @property
    def learning(self) -> float:
        return self.update + self.gradients

    @property
    def total(self) -> float:
        """Weights are handed over when both have ended."""
        both = max(self.generation, self.learning) if self.beside else self.generation + self.learning
        return both + self.refit


def step_time(size: Sizing, hardware: Hardware) -> StepTime:
    """The whole step on `hardware`, all ranks of the layout at work."""
    work = size.work
    update = update_seconds(size, hardware)
    operations = training_operations(size, recomputed=False)
    return StepTime(
        batches={name: batch_seconds(size, hardware, *phases) for name, phases in batches(size).items()},
        update=update,
        gradients=gradient_seconds(size, hardware),
        refit=refit_seconds(size, hardware),
        sampled_tokens=work.propose * work.mean_propose
        + (work.estimate * work.estimate_samples + work.solve * work.solve_samples) * work.mean_solve,
        trained_tokens=work.trained_tokens,
        mfu=operations / (update * size.layout.ranks * hardware.flops),
        beside=size.samplers > 0 and size.staleness > 0,
    )


def utilisation(size: Sizing, time: StepTime) -> float:
    """Share of all ranks' time in which they sample, learn or hand weights over; in the rest some wait for the others. All that sample together
    are taken to end together."""
    busy = size.sampling_ranks * time.generation + size.layout.ranks * time.learning + size.ranks * time.refit
    return busy / (size.ranks * time.total)


@dataclass(frozen=True)
class Asked:
    """Prompts of one phase, each with so many samples of `mean` tokens on average; one at least is taken to reach `longest`."""

    prompts: int
    samples: int
    longest: int
    mean: int


def batches(size: Sizing) -> dict[str, tuple[Asked, ...]]:
    """What a step samples together, as its schedule has it: the phases of each batch, by their names."""
    work = size.work
    asked = {
        "propose": Asked(work.propose, 1, work.longest_propose, work.mean_propose),
        "estimate": Asked(work.estimate, work.estimate_samples, work.longest_solve, work.mean_solve),
        "solve": Asked(work.solve, work.solve_samples, work.longest_solve, work.mean_solve),
    }
    return {" + ".join(phases): tuple(asked[phase] for phase in phases) for phases in BATCHES[size.schedule]}


# The phases of each batch of a step (azr_nemo/selfplay/schedules.py).
BATCHES = {
    "sequential": (("propose",), ("estimate",), ("solve",)),
    "merged": (("propose", "solve"), ("estimate",)),
    "pipelined": (("estimate", "solve", "propose"),),
}


def generation_seconds(size: Sizing, hardware: Hardware, prompts: int, samples: int, longest: int, mean: int) -> float:
    """One phase alone in its batch."""
    return batch_seconds(size, hardware, Asked(prompts, samples, longest, mean))


def batch_seconds(size: Sizing, hardware: Hardware, *phases: Asked) -> float:
    """One batch: every replica samples its share of the prompts. Where they do not all fit at once, those that begin last wait until the places
    before them have been filled as often as there are samples to a place; the longest of them is taken to be as long as any."""
    shares = [-(-asked.prompts // size.replicas) for asked in phases]
    samples = [share * asked.samples for share, asked in zip(shares, phases, strict=True)]
    tokens = sum(count * asked.mean for count, asked in zip(samples, phases, strict=True))
    context = size.work.mean_prompt + round(
        sum(count * (asked.mean // 2) for count, asked in zip(samples, phases, strict=True)) / sum(samples)
    )
    waited = tokens / decoded_together(size, sum(samples), context) - tokens / sum(samples)
    steps = max(asked.longest for asked in phases) + round(waited)
    return steps * decode_seconds(size, hardware, tokens / steps, context) + prefill_seconds(size, hardware, sum(shares))


def decoded_together(size: Sizing, samples: int, context: int) -> int:
    """Of so many samples on one replica, those whose keys and values it holds at a time. context: tokens of each, prompt included."""
    rows = min(size.rollouts.rows, samples)
    if size.rollouts.pooled:
        rows = max(1, min(rows, sampler_memory(size).cache // max(1, cache_bytes(size, context))))
    return rows


def decode_seconds(size: Sizing, hardware: Hardware, live: float, context: int) -> float:
    """One token of each of `live` rows on one replica: weights, keys and values are read, and all are multiplied."""
    model, rollouts = size.model, size.rollouts
    weights = multiplied_parameters(model) + model.vocab * model.hidden
    attention = 4 * model.layers * model.heads * model.head_dim
    read = weights * size.width / rollouts.tensor + live * cache_bytes(size, context)
    multiplied = live * (2 * weights + attention * context) / rollouts.tensor
    step = max(read / (hardware.bandwidth * hardware.reading), multiplied / (hardware.flops * hardware.decode))
    launch = min(hardware.launch_s, GRAPH_LAUNCH_S) if rollouts.pooled and size.accelerated else hardware.launch_s
    step += model.layers * launch
    if rollouts.tensor > 1:
        between = _link(size, hardware, rollouts.tensor)
        step += 2 * model.layers * (hardware.latency_s + 2 * live * model.hidden * size.width / between)
    return step


def prefill_seconds(size: Sizing, hardware: Hardware, prompts: int) -> float:
    """So many prompts on one replica."""
    model, prompt = size.model, size.work.mean_prompt
    attention = 4 * model.layers * model.heads * model.head_dim
    operations = prompts * prompt * (2 * multiplied_parameters(model) + attention * prompt / 2) / size.rollouts.tensor
    return operations / (hardware.flops * hardware.prefill)


def training_operations(size: Sizing, recomputed: bool) -> float:
    """Floating-point operations of a step's update over all ranks: forward once, backward twice, and forward again where it is recomputed, and
    where several optimizer steps need log-probabilities from before the first."""
    model, work = size.model, size.work
    row = work.mean_prompt + work.learnt_tokens / work.rows
    before = 1 if recomputed and size.mini_batches > 1 else 0
    passes = before + (4 if recomputed and size.recompute else 3)
    # Causal: a token sees half of its row on average.
    layers = work.trained_tokens * (2 * multiplied_parameters(model) + 2 * model.layers * model.heads * model.head_dim * row)
    return passes * layers + (before + 3) * 2 * model.vocab * model.hidden * work.learnt_tokens


def update_seconds(size: Sizing, hardware: Hardware) -> float:
    """Forward and backward over all micro-batches, with the pipeline's idle time and what tensor parallelism sends."""
    model, layout = size.model, size.layout
    products = training_operations(size, recomputed=True) / (layout.ranks * hardware.flops * hardware.training)
    talk = 0.0
    if layout.tensor > 1:
        # Two reductions a layer in each pass, two all-gathers and reduce-scatters with sequence parallelism: the same bytes.
        passes = (3 if size.recompute else 2) + (1 if size.mini_batches > 1 else 0)
        tokens = size.work.trained_tokens / layout.data * model.layers / layout.pipeline
        bytes_sent = tokens * passes * 2 * model.hidden * size.width * 2 * (layout.tensor - 1) / layout.tensor
        talk = bytes_sent / _link(size, hardware, layout.tensor)
    return (products + talk) * (1 + (layout.pipeline - 1) / size.micro_batches)


def gradient_seconds(size: Sizing, hardware: Hardware) -> float:
    """The reduction of fp32 gradients over data-parallel ranks, the optimizer's step, and the return of updated weights."""
    layout = size.layout
    parameters = stage_adapters(size.model, size.lora, layout.tensor, layout.pipeline)
    parameters = parameters or max(stage_parameters(size.model, layout.tensor, layout.pipeline, stage) for stage in range(layout.pipeline))
    shards = layout.data if size.distributed_optimizer else 1
    step = parameters / shards * OPTIMIZER_BYTES / (hardware.bandwidth * hardware.reading)
    share = (layout.data - 1) / layout.data
    each = FP32 + size.width if size.distributed_optimizer else 2 * FP32
    return size.mini_batches * (step + parameters * each * share / _link(size, hardware, layout.tensor * layout.data))


def refit_seconds(size: Sizing, hardware: Hardware) -> float:
    """The weight stream: slices sent through the stages, gathered over tensor-parallel ranks, sent to the ranks that only sample, copied into the
    replica, bucket by bucket where that is another process."""
    layout, whole = size.layout, total_parameters(size.model) * size.width
    seconds = 3 * whole / (hardware.bandwidth * hardware.reading)
    if layout.tensor > 1:
        seconds += whole * (layout.tensor - 1) / layout.tensor / _link(size, hardware, layout.tensor)
    if layout.pipeline > 1:
        seconds += whole / layout.tensor / _link(size, hardware, layout.ranks)
    if size.samplers:
        # One stream that each passes on (NCCL); on a CPU each tensor whole, along the branches of a tree (gloo).
        rounds = 1 if size.accelerated else math.ceil(math.log2(size.samplers + 1))
        seconds += rounds * whole / _link(size, hardware, size.ranks)
    if size.rollouts.pooled and not size.padded:
        seconds += -(-whole // BUCKET_BYTES) * HANDOVER_S + (0.0 if size.samplers else WAKING_S)  # what only samples never sleeps
    return seconds


def _link(size: Sizing, hardware: Hardware, ranks: int) -> float:
    """Bytes a second between so many neighbouring ranks: within a node, or across nodes."""
    within = ranks <= max(1, size.gpus_per_node)
    return (hardware.link if within else hardware.fabric) * hardware.talking
