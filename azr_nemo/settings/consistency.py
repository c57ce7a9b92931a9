"""What settings of a run must be to each other; each by itself is checked by what stands on its field. Layouts are checked where the model is known."""

import re
from urllib.parse import urlsplit

from azr_nemo.errors import UserError
from azr_nemo.settings.field import Registered, check
from azr_nemo.settings.schema import ExecutorConfig, LoggingConfig, RunConfig

LONGEST_REMOTE_OUTPUT = 20_000  # characters of one output: four bytes each, packed as text, still fit the server's pipe
ALIGNERS = ("nemo", "trtllm")  # how engine=aligner samples


def check_run(config: RunConfig, registered: Registered) -> None:
    """Raises UserError for the first setting whose value makes no sense."""
    check(config, registered)
    check_executor(config.executor)
    samplers = ALIGNERS if config.engine.name == "aligner" else tuple(registered.get("rollout engines", [config.rollout.name]))
    if config.rollout.name not in samplers:
        raise UserError(
            f"rollout={config.rollout.name} is not for engine={config.engine.name}: choose rollout={' or rollout='.join(samplers)}"
        )
    _check_rollout(config)
    _check_selfplay(config, registered)
    _check_composite(config)
    _check_lora(config)
    _check_services(config.logging)
    _check_loss(config)


def _check_lora(config: RunConfig) -> None:
    """Adapters are this project's own engine's, and of self-play."""
    lora = config.model.lora
    if not lora.rank:
        if lora.path:
            raise UserError(f"model.lora.path={lora.path} needs model.lora.rank: set it to the adapters' own")
        return
    if config.engine.name != "megatron":
        raise UserError(f"model.lora.rank={lora.rank} is for engine=megatron: set it to 0 with engine={config.engine.name}")
    if not lora.targets:
        raise UserError("model.lora.targets=[] leaves nothing to learn: name at least one, such as q_proj")
    if config.warmup.steps:
        raise UserError(
            f"model.lora.rank={lora.rank} and warmup.steps={config.warmup.steps}: a warm start teaches all weights; make it in a run without adapters"
        )


def _check_rollout(config: RunConfig) -> None:
    """What is drawn from, and where servers are."""
    rollout = config.rollout
    truncated = rollout.top_p < 1 or rollout.top_k > 0 or rollout.min_p > 0
    if truncated and config.engine.name == "aligner":
        raise UserError("rollout.top_p, top_k and min_p are for engine=megatron: leave them out with engine=aligner")
    if truncated and config.optim.importance_sampling == "on":
        raise UserError(
            "optim.importance_sampling=on weighs by the probability that a token was drawn with, and rollout.top_p, top_k or min_p draw from a part of "
            "the distribution that the trainer knows: leave them out, or set optim.importance_sampling=metrics"
        )
    if rollout.endpoints and rollout.name != "vllm":
        raise UserError(f"rollout.endpoints is for rollout=vllm, not for rollout={rollout.name}: leave it out")
    if rollout.update_in_flight and (rollout.name != "vllm" or not config.selfplay.staleness):
        raise UserError(
            "rollout.update_in_flight=true hands new weights over while a later step is sampled: set rollout=vllm, placement=split and "
            f"selfplay.staleness=1 or more (they are {rollout.name}, {config.placement} and {config.selfplay.staleness}), or leave it out"
        )
    for url in rollout.endpoints:
        if not _is_url(url):
            raise UserError(f"rollout.endpoints: {url!r} is not a server's URL, such as http://127.0.0.1:8000")


def _check_selfplay(config: RunConfig, registered: Registered) -> None:
    """Task types, samples that share a batch out evenly, a buffer that holds the seeds."""
    selfplay = config.selfplay
    if not selfplay.task_types:
        raise UserError(f"selfplay.task_types={selfplay.task_types}: choose from {', '.join(registered['task types'])}")
    proposing = "proposals" if selfplay.proposals else "batch_size"
    for name, samples, of, rows in (
        ("propose_samples", selfplay.propose_samples, proposing, selfplay.proposed),
        ("solve_samples", selfplay.solve_samples, "batch_size", selfplay.batch_size),
    ):
        if rows % samples:
            raise UserError(f"selfplay.{name}={samples} must divide selfplay.{of}={rows}")
    if selfplay.dynamic_sampling and (selfplay.solve_samples == 1 or not config.advantage.filter_zero_variance):
        raise UserError(
            f"selfplay.dynamic_sampling={selfplay.dynamic_sampling} replaces tasks whose answers all earned the same: set selfplay.solve_samples=2 or "
            "more and advantage.filter_zero_variance=true, or leave it out"
        )
    if selfplay.buffer_capacity < selfplay.batch_size * config.data.seed_factor:
        raise UserError(
            f"selfplay.buffer_capacity={selfplay.buffer_capacity} cannot hold the seeds "
            f"(selfplay.batch_size x data.seed_factor = {selfplay.batch_size * config.data.seed_factor}): raise it"
        )


def _check_loss(config: RunConfig) -> None:
    """PPO's second bound, and rows that its mini-batches share out evenly."""
    optim, selfplay = config.optim, config.selfplay
    if not optim.train_embeddings and config.engine.pipeline_parallel > 1:
        raise UserError("optim.train_embeddings=false is for engine.pipeline_parallel=1: stages would add up gradients that are not there")
    if not optim.train_embeddings and config.engine.name == "aligner":
        raise UserError("optim.train_embeddings=false is for engine=megatron: leave it out with engine=aligner")
    if optim.dual_clip and optim.loss != "ppo":
        raise UserError(f"optim.dual_clip={optim.dual_clip} is for optim.loss=ppo: set it to 0 with optim.loss={optim.loss}")
    if optim.dual_clip and optim.dual_clip <= 1:
        raise UserError(f"optim.dual_clip={optim.dual_clip} must be above 1, or 0 for off")
    if optim.importance_reject != "none" and optim.importance_sampling == "off":
        raise UserError(
            f"optim.importance_reject={optim.importance_reject} is part of importance sampling, which is off: set optim.importance_sampling=on, or "
            "metrics to measure only"
        )
    if selfplay.rows % optim.mini_batches:
        raise UserError(
            f"optim.mini_batches={optim.mini_batches} does not divide the {selfplay.rows} rows of a step "
            "((selfplay.batch_size + selfplay.proposals) x task types): choose a divisor"
        )


def _check_composite(config: RunConfig) -> None:
    composite = config.selfplay.composite
    if composite.functions_max < composite.functions_min:
        raise UserError(
            f"selfplay.composite.functions_max={composite.functions_max} is below functions_min={composite.functions_min}: raise it"
        )
    if composite.chance and not {"deduction", "abduction"} & set(config.selfplay.task_types):
        raise UserError(
            f"selfplay.composite.chance={composite.chance} is for deduction and abduction, and selfplay.task_types has neither: "
            "add one, or set it to 0"
        )


def _check_services(config: LoggingConfig) -> None:
    if config.wandb and not config.wandb_project:
        raise UserError("logging.wandb_project is empty: name the project of Weights & Biases that the run belongs to")
    if config.wandb_run_id and not re.fullmatch(r"[\w-]{1,64}", config.wandb_run_id):
        raise UserError(f"logging.wandb_run_id={config.wandb_run_id} is not an id: letters, digits, - and _, at most 64")
    for key in ("wandb_offline", "wandb_run_id"):
        if getattr(config, key) and not config.wandb:
            raise UserError(f"logging.{key} is for Weights & Biases, which is off: set logging.wandb=true, or leave it out")
    if config.mlflow_uri and not config.mlflow:
        raise UserError("logging.mlflow_uri is for MLflow, which is off: set logging.mlflow=true, or leave it out")
    if config.mlflow and not config.mlflow_experiment:
        raise UserError("logging.mlflow_experiment is empty: name the experiment of MLflow that the run belongs to")


def check_executor(config: ExecutorConfig) -> None:
    """What a remote executor needs, and what it alone has. Raises UserError."""
    remote = config.name == "sandbox_fusion"
    if remote and not config.endpoints:
        raise UserError("executor.endpoints is empty: give the servers' URLs, for example executor.endpoints=[http://localhost:8080]")
    for url in config.endpoints:
        if not _is_url(url):
            raise UserError(f"executor.endpoints: {url!r} is not a server's URL, such as http://localhost:8080")
    if remote and config.modules:
        raise UserError(
            "executor.modules is for executor=local: which modules a server has is its own setting (azr-nemo sandbox serve --modules)"
        )
    if remote and config.output_chars > LONGEST_REMOTE_OUTPUT:
        raise UserError(
            f"executor.output_chars={config.output_chars} is more than a Sandbox-Fusion server passes on: at most {LONGEST_REMOTE_OUTPUT}"
        )


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # asking for the port reads it
    except ValueError:
        return False
