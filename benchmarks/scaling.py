"""What the plan's model says of 14B and 32B models on 8 to 512 GPUs of 80 GB: computed, not measured.

    python benchmarks/scaling.py          # the table of docs/scaling.md

For each number of GPUs the layout with the shortest step among those that fit: tensor parallelism within a node, pipeline parallelism, and the GPUs
of a rollout replica. All else is as in the recipes: the published batch and lengths, recomputation, the distributed optimizer, rollout=trtllm.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from azr_nemo.errors import UserError
from azr_nemo.models.shape import model_shape
from azr_nemo.planning.plan import Plan, make_plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.schema import RunConfig

RECIPES = {"14B": "qwen2_5_14b-4n8g-megatron", "32B": "qwen2_5_32b-8n8g-megatron"}
GPUS = (8, 16, 32, 64, 128, 256, 512)
HEADS = (
    "model", "GPUs", "TP x PP x DP", "rollout TP", "peak GB", "generation s", "update s", "step s", "sampled tokens/s", "against 8 times fewer",
)  # fmt: skip


def fastest(config: RunConfig, nodes: int) -> Plan | None:
    """The plan with the shortest step that fits on so many nodes of eight GPUs, or None."""
    return min(layouts(config, nodes), key=lambda plan: plan.time.total, default=None)


def layouts(config: RunConfig, nodes: int) -> Iterator[Plan]:
    """The plans of all layouts that fit on so many nodes of eight GPUs; with placement=split every sixteenth of the GPUs may be samplers."""
    shape, gpus = model_shape(config.model), 8 * nodes
    samplers = range(max(1, gpus // 16), gpus, max(1, gpus // 16)) if config.placement == "split" else (0,)
    for tensor, pipeline, rollout, sampling in itertools.product((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), samplers):
        tried = replace(
            config,
            cluster=replace(config.cluster, nodes=nodes, sampler_ranks=sampling),
            engine=replace(config.engine, tensor_parallel=tensor, pipeline_parallel=pipeline, sequence_parallel=tensor > 1),
            rollout=replace(config.rollout, tensor_parallel=rollout),
        )
        try:
            plan = make_plan(tried, shape=shape)
        except UserError:  # the model or the GPUs cannot be cut this way
            continue
        if plan.fits:
            yield plan


def main() -> None:
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS))
    for name, recipe in RECIPES.items():
        config = load_settings([f"recipe={recipe}"])
        steps: dict[int, float] = {}
        for gpus in GPUS:
            plan = fastest(config, gpus // 8)
            if plan is None:
                print(f"| {name} | {gpus} | does not fit |" + " |" * (len(HEADS) - 3))
                continue
            layout, time = plan.size.layout, plan.time
            steps[gpus] = time.total
            speedup = f"{steps[gpus // 8] / time.total:.1f}x" if gpus // 8 in steps else ""
            cells = (
                name, gpus, f"{layout.tensor} x {layout.pipeline} x {layout.data}", plan.size.rollouts.tensor, f"{plan.memory.peak / 1e9:.0f}",
                f"{time.generation:.0f}", f"{time.update + time.gradients:.0f}", f"{time.total:.0f}",
                f"{time.sampled_tokens / time.generation:.0f}", speedup,
            )  # fmt: skip
            print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
