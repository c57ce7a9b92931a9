"""Ranks and batch sizes of this engine, and its checks of settings: nothing here imports NeMo."""

import os
from typing import Any

from omegaconf import DictConfig

from azr_nemo.errors import UserError
from azr_nemo.settings.schema import RunConfig


def world_size() -> int:
    """How many ranks this run has: torchrun's WORLD_SIZE, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def data_parallel_size(config: RunConfig) -> int:
    """Raises UserError when tensor x pipeline parallelism does not divide the ranks."""
    model = config.engine.tensor_parallel * config.engine.pipeline_parallel
    if world_size() % model:
        raise UserError(
            f"engine.tensor_parallel x engine.pipeline_parallel is {model}, which does not divide the {world_size()} ranks of this run"
        )
    return world_size() // model


def global_batch_size(config: RunConfig) -> int:
    """Rows of one optimizer step, which NeMo-Aligner wants to be the same every step: all that a step can have, filled up to whole micro-batches
    on every rank."""
    rows = config.selfplay.rows
    multiple = config.aligner.micro_batch * data_parallel_size(config)
    return -(-rows // multiple) * multiple


def check_settings(config: RunConfig) -> None:
    """Raises UserError for a setting that this engine does not have."""
    if config.advantage.name != "trr_plus_plus":
        raise UserError(f"advantage.name={config.advantage.name}: engine=aligner has trr_plus_plus alone; use engine=megatron for others")
    only = {
        "advantage.easy_success_weight": 1.0,
        "advantage.failure_weight": 1.0,
        "optim.loss": "ppo",
        "optim.aggregation": "token_mean",
        "optim.mini_batches": 1,
        "optim.importance_sampling": "off",
        "optim.lr_decay_steps": 0,
    }
    for key, value in only.items():
        group, name = key.split(".")
        if (asked := getattr(getattr(config, group), name)) != value:
            raise UserError(f"{key}={asked}: engine=aligner has {value} alone; set it to that, or use engine=megatron")
    if config.selfplay.prompt_style == "code":
        raise UserError(
            "selfplay.prompt_style=code ends answers by stop strings of each prompt, which engine=aligner's samplers have not: "
            "use engine=megatron, or prompt_style=r1, completion or chat"
        )
    if config.model.fp32_logits:
        raise UserError(
            "model.fp32_logits=true: engine=aligner computes logits in the model's dtype; set it to false, or use engine=megatron"
        )
    if config.warmup.steps:
        raise UserError("warmup.steps: engine=aligner has no warm start; set warmup.steps=0")
    for name, value, off in (
        ("reuse_estimates", "true", "false"),
        ("known_answers", "true", "false"),
        ("replay", str(config.selfplay.replay), "0"),
    ):
        if getattr(config.selfplay, name):
            raise UserError(
                f"selfplay.{name}={value}: engine=aligner trains on equally many rows every step; set it to {off}, or use engine=megatron"
            )
    if config.eval.stop_if_worse:
        raise UserError("eval.stop_if_worse: engine=aligner does not stop by itself; set it to 0")
    if config.eval.every and config.checkpoint.every % config.eval.every:
        raise UserError(
            f"checkpoint.every={config.checkpoint.every} must be a multiple of eval.every={config.eval.every} with engine=aligner, "
            "as NeMo-Aligner validates whenever it saves"
        )
    if config.rollout.name == "trtllm":
        check_trtllm_settings(config)


def check_model(config: RunConfig, model: Any) -> None:
    """model: its model_config.yaml. Raises UserError when the model cannot be laid out or sampled from as the configuration says."""
    engine, rollout = config.engine, config.rollout
    if model.get("qk_layernorm"):
        raise UserError(
            f"model.path={config.model.path} normalises queries and keys (Qwen3), which NeMo 2.1 leaves out: use engine=megatron"
        )
    for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size", "override_vocab_size"):
        if (value := model.get(name)) and value % engine.tensor_parallel:
            raise UserError(f"engine.tensor_parallel={engine.tensor_parallel} does not divide the model's {name}={value}: choose a divisor")
    if model.num_layers % engine.pipeline_parallel:
        raise UserError(f"engine.pipeline_parallel={engine.pipeline_parallel} does not divide the model's {model.num_layers} layers")
    longest = rollout.max_prompt_tokens + max(rollout.max_propose_tokens, rollout.max_solve_tokens)
    if longest > model.encoder_seq_length:
        raise UserError(
            f"rollout.max_prompt_tokens + rollout.max_propose_tokens or max_solve_tokens is {longest}, more than the model's "
            f"encoder_seq_length={model.encoder_seq_length}: lower them"
        )
    if rollout.name == "trtllm":
        check_trtllm_model(config, model)


# megatron.core.export.model_type.ModelType of megatron-core 0.10, whose exporter NeMo 2.1 calls.
MODEL_TYPES = ("gpt", "gptnext", "llama", "falcon", "starcoder", "mixtral", "gemma")


def check_trtllm_settings(config: RunConfig) -> None:
    """What the settings alone tell. Raises UserError."""
    if config.aligner.model_type not in MODEL_TYPES:
        raise UserError(
            f"aligner.model_type={config.aligner.model_type} is not among what NeMo 2.1 exports to TensorRT-LLM: {', '.join(MODEL_TYPES)}; "
            "for another model use rollout=nemo, or engine=megatron with rollout=trtllm"
        )
    for text in config.aligner.stop_strings:
        if "," in text:
            raise UserError(f"aligner.stop_strings: {text!r} has a comma, which separates stop strings in TensorRT-LLM: leave it out")


def check_trtllm_model(config: RunConfig, model: Any) -> None:
    """What the model's own configuration tells (model_config.yaml). Raises UserError."""
    if model.get("qkv_bias", False):
        raise UserError(
            f"rollout=trtllm cannot serve {config.model.path}: its QKV layers have biases, as Qwen2's do, which NeMo 2.1 does not export; "
            "use rollout=nemo, or engine=megatron with rollout=trtllm"
        )


def check_mpi_ranks(mpi_rank: int, rank: int) -> None:
    """TensorRT-LLM takes its place in the job from MPI. Raises UserError."""
    if mpi_rank != rank:
        raise UserError(
            f"rollout=trtllm: MPI rank {mpi_rank} is torch rank {rank}, but they must be the same: "
            "start the job with srun --mpi=pmix or mpirun, and not with torchrun"
        )


def trtllm_section(config: RunConfig) -> DictConfig:
    """The section `trt_llm` of NeMo-Aligner's model configuration."""
    return DictConfig(
        {
            "enable": config.rollout.name == "trtllm",
            "reshard": config.aligner.reshard,
            "max_input_len": config.rollout.max_prompt_tokens,
            "seed": config.seed,
            "model_type": config.aligner.model_type,
            "unload_engine_train": config.aligner.unload_engine,
        }
    )
