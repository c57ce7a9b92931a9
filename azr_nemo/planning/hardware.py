"""What the estimate of time assumes of a machine: the makers' peaks, and the share of them that a step reaches.

The shares for GPUs are what is commonly reached, not measured here; those for a CPU follow from this project's own benchmarks (docs/scaling.md).
"""

import os
from dataclasses import dataclass


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
