"""Plans as tables."""

from collections.abc import Sequence

from rich.table import Table

from azr_nemo.errors import UserError
from azr_nemo.planning.parameters import total_parameters
from azr_nemo.planning.plan import GPUS_GB, Change, Plan, make_plan, nearest_that_fits
from azr_nemo.planning.sizing import Sizing
from azr_nemo.planning.step_time import utilisation
from azr_nemo.settings.schema import RunConfig


def parts_table(plan: Plan) -> Table:
    """Memory of the rank that needs most, part by part."""
    size, found = plan.size, plan.memory
    batch, rollouts, layout = size.batch, size.rollouts, size.layout
    where = f"a GPU of {size.capacity / 1e9:.0f} GB" if size.accelerated else f"this machine's {size.capacity / 1e9:.0f} GB"
    whose = "a rank that trains and of one that samples" if plan.sampler else "the rank that needs most"
    table = Table("part", "GB", "of what", title=f"memory of {whose}, in GB of 10^9 bytes ({where})")
    numbers = {2: "bfloat16", 4: "float32"}[size.width]
    shards = f", shared by {layout.data} data-parallel ranks" if size.distributed_optimizer else ""
    masters = "fp32 masters and " if size.width == 2 else ""
    table.add_row("weights", gb(found.weights), f"{numbers}, tensor parallel {layout.tensor}, pipeline parallel {layout.pipeline}")
    table.add_row("gradients", gb(found.gradients), "fp32, given back while sampling" if found.offloaded else "fp32")
    table.add_row("optimizer", gb(found.optimizer), f"{masters}Adam's two moments{shards}")
    kept = "each layer's input" if size.recompute else "all that the backward pass needs"
    table.add_row("activations", gb(found.activations), f"{kept}, of a micro-batch of {batch.tokens} tokens, the largest possible")
    table.add_row("scratch", gb(found.scratch), f"one layer's backward pass, or the logits of {batch.learnt} tokens")
    if found.holes:
        table.add_row("heap", gb(found.step * found.holes), "holes that glibc leaves between what a step allocates")
    if size.accelerated and not size.padded:
        table.add_row("checkpoint", gb(0), f"while one is written; {gb(found.snapshot)} GB of the host's memory for each rank")
    if plan.sampler:
        table.add_row("peak", gb(found.peak), f"of the {size.layout.ranks} ranks that train", style="bold")
        found = plan.sampler
    cut = f"cut over {rollouts.tensor} GPUs" if rollouts.tensor > 1 else "the whole model on every rank"
    replica = f"rollout={rollouts.name}, {cut if rollouts.name != 'nemo' else 'the weights of the trainer'}"
    table.add_row("rollout replica", gb(found.replica), replica)
    cache = (
        f"{rollouts.fraction:.0%} of what is free at the start"
        if found.reserved
        else f"of up to {rollouts.rows} rows" + ("" if found.reserved else "; not while learning")
    )
    table.add_row("keys and values", gb(found.cache), cache)
    when = "while learning" if found.training >= found.generating else "while generating"
    table.add_row("peak", gb(found.peak), f"of the {size.samplers} that sample" if plan.sampler else when, style="bold")
    return table


def time_table(plan: Plan) -> Table:
    """Seconds of a step, phase by phase."""
    size, time, work, hardware = plan.size, plan.time, plan.size.work, plan.hardware
    title = f"a step on {size.ranks} x {hardware.name}, computed, not measured" if size.accelerated else f"a step on a {hardware.name}"
    table = Table("phase", "s", "of what", title=title)
    of_what = {
        "propose": f"{work.propose} proposals of {work.mean_propose} tokens (at most {work.longest_propose})",
        "estimate": f"at most {work.estimate} x {work.estimate_samples} samples of {work.mean_solve} tokens (at most {work.longest_solve})",
        "solve": f"{work.solve} x {work.solve_samples} solutions",
    }
    for name, seconds in time.batches.items():
        table.add_row(name, f"{seconds:.1f}", "; ".join(of_what[phase] for phase in name.split(" + ")))
    share = (
        f"{hardware.training:.0%} of {hardware.flops / 1e12:.3g} TFLOP/s a rank"
        if size.accelerated
        else f"{hardware.training:.0%} of its peak"
    )
    table.add_row("update", f"{time.update:.1f}", f"{work.rows} rows, {time.trained_tokens} tokens at {share}")
    table.add_row("gradients", f"{time.gradients:.1f}", "their reduction, and the optimizer")
    table.add_row("refit", f"{time.refit:.1f}", "the weight stream to the rollout replicas")
    speed = f"{time.sampled_tokens / time.generation:.0f} tokens/s sampled"
    if size.samplers:
        waiting = "those that sample" if time.generation < time.learning else "those that train"
        together = f"both at the same time, {waiting} wait" if time.beside else "one after the other"
        speed += (
            f", {time.sampled_tokens / time.total:.0f} over the step; {together}: {utilisation(size, time):.0%} of all ranks' time is used"
        )
    table.add_row("step", f"{time.total:.1f}", speed, style="bold")
    return table


def sentences(config: RunConfig, plan: Plan) -> list[str]:
    """Whether it fits, and what does where it does not."""
    if not plan.size.accelerated:
        state = "fits" if plan.fits else "does not fit"
        lines = [f"{state} this machine: {gb(plan.peak)} of {gb(plan.size.capacity)} GB, beside about 0.4 GB of interpreter and libraries"]
        return lines if plan.fits else [*lines, nearest(config)]
    own = plan.size.capacity // 10**9
    lines = ["engine=aligner is counted by the same parts, which NeMo allocates on its own: a rough guide"] if plan.size.padded else []
    for memory_gb in sorted({*GPUS_GB, own}):
        mark = " (the recipe's)" if memory_gb == own else ""
        if plan.fits_gpu(memory_gb):
            lines.append(f"{memory_gb} GB{mark}: fits")
        else:
            lines.append(f"{memory_gb} GB{mark}: does not fit; {nearest(config, memory_gb)}")
    return lines


def nearest(config: RunConfig, memory_gb: int = 0) -> str:
    """What to change so that it fits, as overrides."""
    found = nearest_that_fits(config, memory_gb)
    if not found:
        return "nothing that is near fits: choose a smaller model or larger GPUs"
    change, plan = found
    return f"nearest that does: {overrides(change)} ({gb(plan.peak)} GB, {plan.time.total:.0f} s a step)"


def overrides(change: Change) -> str:
    return " ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in change.items())


def table_of(configs: Sequence[RunConfig]) -> Table:
    """Every recipe in a row; one that cannot be planned says why."""
    table = Table(
        "recipe", "parameters", "machines", "TP x PP x DP", "state", "step", "replica", "cache", "peak", "40/80/141", "s a step",
        title="azr-nemo plan --all: GB (10^9 bytes) of the rank that needs most; computed, not measured",
    )  # fmt: skip
    below: list[str] = []
    for config in configs:
        try:
            plan = make_plan(config)
        except UserError as error:
            table.add_row(config.recipe, "-", "-", "-", *["-"] * 7)
            below.append(f"{config.recipe}: {error}")
            continue
        table.add_row(config.recipe, *cells(plan))
        if not plan.fits:
            below.append(f"{config.recipe} does not fit: {nearest(config)}")
    table.caption = "\n".join(below) or None
    return table


def cells(plan: Plan) -> list[str]:
    """A plan's numbers as a row of `table_of`, from the parameters on."""
    size, found, layout = plan.size, plan.memory, plan.size.layout
    sampler = plan.sampler or found
    fit = "/".join("yes" if plan.fits_gpu(memory_gb) else "no" for memory_gb in GPUS_GB) if size.accelerated else "-"
    return [
        parameters(total_parameters(size.model)), machines(size), f"{layout.tensor} x {layout.pipeline} x {layout.data}",
        gb(found.state - found.replica), gb(found.step * (1 + found.holes)), gb(sampler.replica), gb(sampler.cache), gb(plan.peak), fit,
        f"{plan.time.total:.0f}",
    ]  # fmt: skip


def machines(size: Sizing) -> str:
    return f"{size.nodes} x {size.gpus_per_node} x {size.capacity / 1e9:.0f} GB" if size.accelerated else f"{size.nodes} x CPU"


def parameters(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"


def gb(count: float) -> str:
    return f"{count / 1e9:.1f}"
