"""What a configuration amounts to, checked and said before anything runs: no GPU and no weights are needed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import check_layout, read_architecture
from azr_nemo.models import missing_parts
from azr_nemo.models.shape import model_shape
from azr_nemo.planning.aligner_layout import check_trtllm_model
from azr_nemo.planning.parameters import total_parameters
from azr_nemo.runs.checkpoints import Checkpoints, read
from azr_nemo.settings.schema import RunConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def planned_ranks(config: RunConfig) -> int:
    """The ranks of a run that has not begun: the launcher's where there is one, else a rank for each GPU of `cluster`, and 1 without GPUs."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return config.cluster.nodes * max(1, config.cluster.gpus_per_node)


def check_run(config: RunConfig, ranks: int) -> "PretrainedConfig":
    """The checks that a run and its dry run share: layout, lengths, rollout replicas, files. ranks: how many train.

    Returns the model's configuration. Raises UserError for the first setting that does not fit; builds and writes nothing.
    """
    shape = model_shape(config.model)
    _check_placement(config, ranks)
    engine, rollout = config.engine, config.rollout
    check_layout(shape, engine.tensor_parallel, engine.pipeline_parallel, ranks)
    if engine.sequence_parallel and engine.tensor_parallel == 1:
        raise UserError("engine.sequence_parallel=true needs engine.tensor_parallel above 1: it shards between tensor-parallel ranks")
    longest, positions = longest_row(config), read_architecture(shape).positions
    if longest > positions:
        raise UserError(
            f"rollout.max_prompt_tokens={rollout.max_prompt_tokens} and responses of {longest - rollout.max_prompt_tokens} tokens make "
            f"{longest}, more than the {positions} positions of {config.model.path}: lower them"
        )
    _check_replicas(config, shape, config.sampler_ranks or ranks)
    for file in config.data.seed_files:
        if not Path(file).is_file():
            raise UserError(f"data.seed_files names {file}, which is not a file: give its path, or data=zero to begin without")
    if config.resume not in ("auto", "never"):
        read(Path(config.resume))
    return shape


def _check_placement(config: RunConfig, ranks: int) -> None:
    """ranks: those that train."""
    samplers = config.cluster.sampler_ranks
    if config.placement == "split" and (not samplers or ranks < 1 or config.engine.name == "aligner"):
        raise UserError(
            f"placement=split with cluster.sampler_ranks={samplers}: at least one of the run's ranks must sample and one must train, with "
            "engine=megatron"
        )
    if config.placement == "colocated" and (samplers or config.selfplay.staleness):
        name = f"cluster.sampler_ranks={samplers}" if samplers else f"selfplay.staleness={config.selfplay.staleness}"
        raise UserError(f"{name} is for placement=split: set that, or leave it at 0")


def longest_row(config: RunConfig) -> int:
    """Tokens of the longest row that a run can meet: a prompt and its response."""
    rollout = config.rollout
    return rollout.max_prompt_tokens + max(rollout.max_propose_tokens, rollout.max_solve_tokens)


def _check_replicas(config: RunConfig, shape: "PretrainedConfig", ranks: int) -> None:
    size, rollout, model = config.rollout.tensor_parallel, config.rollout, read_architecture(shape)
    if config.engine.name == "aligner":
        if model.family == "qwen3":
            raise UserError(f"engine=aligner cannot train {config.model.path}: NeMo 2.1 does not know Qwen3; use engine=megatron")
        if rollout.name == "trtllm":
            check_trtllm_model(config, {"qkv_bias": model.qkv_bias})
    if rollout.name not in ("trtllm", "vllm") or config.engine.name == "aligner":
        if size != 1:
            raise UserError(
                f"rollout.tensor_parallel={size} is for engine=megatron with rollout=trtllm or rollout=vllm, not for engine={config.engine.name} "
                f"with rollout={rollout.name}: leave it at 1"
            )
        return
    if size != 1 and not config.cluster.gpus_per_node:
        raise UserError(f"rollout.tensor_parallel={size} is for GPUs, and cluster.gpus_per_node is 0: leave it at 1")
    if rollout.endpoints and len(rollout.endpoints) != ranks // size:
        raise UserError(
            f"rollout.endpoints names {_count(len(rollout.endpoints), 'server')}, and the run has {_count(ranks // size, 'replica')} of "
            f"{_count(size, 'rank')}: name one for each, in the order of the ranks"
        )
    if model.heads % size or model.kv_heads % size:
        raise UserError(
            f"rollout.tensor_parallel={size} does not divide the model's {model.heads} attention heads and {model.kv_heads} kv heads: lower it"
        )
    node = int(os.environ.get("LOCAL_WORLD_SIZE", config.cluster.gpus_per_node or ranks))
    if node % size:
        raise UserError(f"rollout.tensor_parallel={size} does not divide the {node} GPUs of a node: a replica lies within one node")


def describe(config: RunConfig) -> list[str]:
    """Model, layout, batch arithmetic and token budgets in words. Raises UserError as `check_run` does."""
    ranks = planned_ranks(config) - config.sampler_ranks
    shape = read_architecture(check_run(config, ranks))
    Checkpoints(Path(config.run_dir), config.checkpoint.keep).find(config.resume)
    engine, selfplay, rollout = config.engine, config.selfplay, config.rollout
    data = ranks // (engine.tensor_parallel * engine.pipeline_parallel)
    replica = _replica_size(config)
    replicas = (config.sampler_ranks or ranks) // replica
    path = Path(config.model.path).expanduser()
    present = ":" in config.model.path or (path.exists() if engine.name == "aligner" else not missing_parts(path))
    types = len(selfplay.task_types)
    estimates = selfplay.proposed * types * rollout.estimate_samples
    rows = selfplay.trained_proposals + selfplay.learnt_answers(rollout.estimate_samples)
    share, longest = -(-rows // data), longest_row(config)
    if engine.name == "aligner":
        full, micro = -(-share // config.aligner.micro_batch), f"{_count(config.aligner.micro_batch, 'row')}, padded"
    else:
        full, micro = -(-share // max(1, engine.micro_batch_tokens // (longest - 1))), f"{engine.micro_batch_tokens:,} tokens"
    solutions = selfplay.batch_size * types
    generated = selfplay.proposed * types * rollout.max_propose_tokens + (estimates + solutions) * rollout.max_solve_tokens
    place = f" on {config.cluster.nodes} x {config.cluster.gpus_per_node} GPUs" if config.cluster.gpus_per_node else ""
    lines = [
        f"model: {shape.family}, {total_parameters(shape) / 1e6:,.0f} million parameters, {config.model.path}"
        + ("" if present else ", which is not there yet: give its directory as model.path=DIR"),
        f"layout: {_count(ranks, 'rank')}{place} = tensor parallel {engine.tensor_parallel} x pipeline parallel {engine.pipeline_parallel} "
        f"x data parallel {data}; engine {engine.name}"
        + (f"; {_count(config.sampler_ranks, 'rank')} more to sample" if config.sampler_ranks else ""),
        f"rollouts: {rollout.name}, {_count(replicas, 'replica')} of {_count(replica, 'rank')}",
        f"a step: {rows:,} rows in one update ({selfplay.batch_size} answers and {selfplay.proposed} proposals per task type), {share:,} for a "
        f"data-parallel rank; at most {estimates:,} estimates ({rollout.estimate_samples} a proposal)",
        f"micro-batches: {micro}; at most {full:,} for a rank, if every row has its full length",
        f"tokens: prompts up to {rollout.max_prompt_tokens:,}, proposals {rollout.max_propose_tokens:,}, solutions "
        f"{rollout.max_solve_tokens:,}; the longest row has {longest:,} of the model's {shape.positions:,}",
        f"budget of a step, at most: {generated:,} tokens generated, {-(-generated // replicas):,} by a replica; {rows * longest:,} tokens "
        f"trained, {share * longest:,} by a data-parallel rank",
        f"seeds: {selfplay.batch_size * config.data.seed_factor} per type; warm start: {config.warmup.steps} steps",
        f"checkpoints: every {config.checkpoint.every} steps of {selfplay.steps}, the newest {config.checkpoint.keep} kept",
    ]
    if engine.pipeline_parallel > 1:
        idle = (engine.pipeline_parallel - 1) / (full + engine.pipeline_parallel - 1)
        lines.insert(
            5, f"pipeline: {engine.pipeline_parallel} stages of {shape.layers // engine.pipeline_parallel} layers, idle {idle:.1%} then"
        )
    return lines


def _replica_size(config: RunConfig) -> int:
    """How many ranks decode together."""
    if config.engine.name == "megatron":
        return config.rollout.tensor_parallel
    alone = config.rollout.name == "trtllm" and config.aligner.reshard
    return config.engine.tensor_parallel * (1 if alone else config.engine.pipeline_parallel)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
