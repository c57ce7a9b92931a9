"""What a configuration amounts to, said before anything runs."""

from pathlib import Path

from azr_nemo.config import RunConfig
from azr_nemo.megatron.architecture import check_layout
from azr_nemo.megatron.huggingface import read_config
from azr_nemo.models import missing_parts
from azr_nemo.settings import world_size


def describe(config: RunConfig) -> list[str]:
    """Layout, batch arithmetic and token budgets in words. Raises UserError when the layout does not fit a model that is at hand."""
    engine, selfplay, rollout = config.engine, config.selfplay, config.rollout
    directory = Path(config.model.path).expanduser()
    if ":" not in config.model.path and not missing_parts(directory):
        check_layout(read_config(directory), engine.tensor_parallel, engine.pipeline_parallel, world_size())
    types = len(selfplay.task_types)
    rows = selfplay.batch_size * types * (2 if selfplay.train_propose else 1)
    estimates = selfplay.batch_size * types * rollout.estimate_samples
    return [
        f"layout: {world_size()} ranks, tensor parallel {engine.tensor_parallel}, pipeline parallel {engine.pipeline_parallel}",
        f"a step: {rows} rows trained ({selfplay.batch_size} per role and task type), at most {estimates} estimates sampled",
        f"tokens: prompts up to {rollout.max_prompt_tokens}, proposals {rollout.max_propose_tokens}, solutions {rollout.max_solve_tokens}",
        f"seeds: {selfplay.batch_size * config.data.seed_factor} per type; warm start: {config.warmup.steps} steps",
    ]
