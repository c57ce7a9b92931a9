"""What NeMo-Aligner's GPTGenerateTRTLLM asks of a run, checked before it starts: there they are assertions, or surface in the middle of a build."""

from typing import Any

from omegaconf import DictConfig

from azr_nemo.errors import UserError
from azr_nemo.settings.schema import RunConfig

# megatron.core.export.model_type.ModelType of megatron-core 0.10, whose exporter NeMo 2.1 calls.
MODEL_TYPES = ("gpt", "gptnext", "llama", "falcon", "starcoder", "mixtral", "gemma")


def check_settings(config: RunConfig) -> None:
    """What the settings alone tell. Raises UserError."""
    if config.aligner.model_type not in MODEL_TYPES:
        raise UserError(
            f"aligner.model_type={config.aligner.model_type} is not among what NeMo 2.1 exports to TensorRT-LLM: {', '.join(MODEL_TYPES)}; "
            "for another model use rollout=nemo, or engine=megatron with rollout=trtllm"
        )
    for text in config.aligner.stop_strings:
        if "," in text:
            raise UserError(f"aligner.stop_strings: {text!r} has a comma, which separates stop strings in TensorRT-LLM: leave it out")


def check_model(config: RunConfig, model: Any) -> None:
    """What the model's own configuration tells (model_config.yaml). Raises UserError."""
    if model.get("qkv_bias", False):
        raise UserError(
            f"rollout=trtllm cannot serve {config.model.path}: its QKV layers have biases, as Qwen2's do, which NeMo 2.1 does not export; "
            "use rollout=nemo, or engine=megatron with rollout=trtllm"
        )


def check_ranks(mpi_rank: int, rank: int) -> None:
    """TensorRT-LLM takes its place in the job from MPI. Raises UserError."""
    if mpi_rank != rank:
        raise UserError(
            f"rollout=trtllm: MPI rank {mpi_rank} is torch rank {rank}, but they must be the same: "
            "start the job with srun --mpi=pmix or mpirun, and not with torchrun"
        )


def settings(config: RunConfig) -> DictConfig:
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
