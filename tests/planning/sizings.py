"""A sizing that tests change one number of."""

from dataclasses import replace
from typing import Any

from azr_nemo.megatron.architecture import Architecture
from azr_nemo.planning.sizing import Layout, MicroBatch, Rollouts, Sizing, Work

# Sizes for sums by hand: a layer has 32 x 32 x 2 (queries, output) + 32 x 16 x 2 (keys, values) + 3 x 96 x 32 + 64 = 12,352 parameters.
MODEL = Architecture(
    family="llama", layers=4, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=96, vocab=100, positions=4096, norm_eps=1e-5, tied=False,
    rope_theta=1e4,
)  # fmt: skip


def make_sizing(**changes: Any) -> Sizing:
    """On one H100 in bfloat16, with rollout=torch."""
    size = Sizing(
        model=MODEL,
        layout=Layout(),
        width=2,
        recompute=False,
        distributed_optimizer=False,
        batch=MicroBatch(tokens=1000, learnt=500, row=1000),
        micro_batch_tokens=1000,
        rollouts=Rollouts("torch", 1, 0.5, rows=8, prompt=100, response=28),
        work=Work(
            propose=4,
            estimate=4,
            estimate_samples=2,
            solve=4,
            solve_samples=1,
            rows=8,
            answers=4,
            shared=1,
            longest_propose=28,
            longest_solve=28,
            mean_prompt=50,
            mean_propose=10,
            mean_solve=20,
        ),
        nodes=1,
        gpus_per_node=8,
        capacity=80 * 10**9,
    )
    return replace(size, **changes)
