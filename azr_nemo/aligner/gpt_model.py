"""From a run's configuration and a NeMo checkpoint to NeMo-Aligner's trainer and actor, as its train_gpt_ppo_actor.py makes them."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from nemo_aligner.utils.train_script_utils import (
    extract_optimizer_scheduler_from_ptl_model,
    init_distributed,
    init_using_ptl,
    resolve_and_create_trainer,
)
from nemo_aligner.utils.utils import load_checkpoint_model_config, load_from_nemo
from omegaconf import DictConfig, OmegaConf

from azr_nemo.aligner import cpu
from azr_nemo.aligner.ppo_actor import SelfPlayActor
from azr_nemo.errors import UserError
from azr_nemo.megatron.platform import set_threads
from azr_nemo.planning import aligner_layout
from azr_nemo.settings.schema import RunConfig

NEWER, OLDER = "TokenizersBackend", "PreTrainedTokenizerFast"  # the same class under both names
FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")


@contextmanager
def readable(directory: Path) -> Iterator[Path]:
    """The directory itself, or, while the context lasts, a copy of its tokenizer with the older name of its class. Raises UserError when its
    configuration cannot be read."""
    path = directory / "tokenizer_config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): bring it back, or give another tokenizer with aligner.tokenizer=DIR") from None
    if described.get("tokenizer_class") != NEWER:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as folder:
        copy = Path(folder)
        for name in FILES:
            if (directory / name).is_file():
                shutil.copy(directory / name, copy / name)
        (copy / "tokenizer_config.json").write_text(json.dumps({**described, "tokenizer_class": OLDER}), encoding="utf-8")
        yield copy


END = "<|endoftext|>"  # NeMo's text for "the tokenizer's end token", whatever that is


def read_model_config(path: Path) -> DictConfig:
    """The model_config.yaml of a .nemo file or a NeMo checkpoint folder. Raises UserError when there is none."""
    if not path.exists():
        raise UserError(
            f"model.path={path} does not exist: engine=aligner starts from a .nemo file (azr-nemo convert MODEL OUT.nemo --to nemo)"
        )
    try:
        return DictConfig(OmegaConf.to_container(load_checkpoint_model_config(str(path))))
    except (OSError, AssertionError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"model.path={path} is not a .nemo file or a NeMo checkpoint folder ({error}): make one of a Hugging Face directory with "
            "azr-nemo convert DIR OUT.nemo --to nemo"
        ) from None


def actor_config(config: RunConfig, model: DictConfig, on_cpu: bool) -> DictConfig:
    """The actor's configuration: the checkpoint's own, with the run's layout, optimizer and PPO settings."""
    engine, rollout, optim, aligner = config.engine, config.rollout, config.optim, config.aligner
    bf16 = config.model.dtype == "bfloat16" or (config.model.dtype == "auto" and not on_cpu)
    if on_cpu and bf16:
        raise UserError("model.dtype=bfloat16: engine=aligner computes in float32 on a CPU; set model.dtype=float32")
    ours: dict[str, Any] = {
        "precision": "bf16" if bf16 else 32,
        "megatron_amp_O2": bf16,
        "seed": config.seed,
        "tensor_model_parallel_size": engine.tensor_parallel,
        "pipeline_model_parallel_size": engine.pipeline_parallel,
        "sequence_parallel": engine.sequence_parallel,
        "micro_batch_size": aligner.micro_batch,
        "global_batch_size": aligner_layout.global_batch_size(config),
        "dist_ckpt_format": aligner.checkpoint_format,
        "gradient_accumulation_fusion": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "ffn_dropout": 0.0,
        "peft": {"peft_scheme": "none"},
        "optim": _optimizer(config, on_cpu),
        "ppo": {
            "length_params": {"max_length": max(rollout.max_propose_tokens, rollout.max_solve_tokens), "min_length": 1},
            "sampling_params": {
                "use_greedy": False,
                "temperature": rollout.temperature,
                "top_k": 0,
                "top_p": 1.0,
                "repetition_penalty": 1.0,
                "add_BOS": False,
                "all_probs": False,
                "compute_logprob": False,
                "end_strings": [END, *aligner.stop_strings],
            },
            "offload_adam_states": aligner.offload_optimizer and not on_cpu,
            "forward_micro_batch_size": aligner.micro_batch,
            "rollout_micro_batch_size": rollout.max_batch_rows,
            "trt_llm": aligner_layout.trtllm_section(config),
            "trt_model_dir": str(Path(config.run_dir) / "trt_llm"),
            # NeMo-Aligner's loss reads these two; ours the ones below
            "entropy_bonus": optim.entropy,
            "ratio_eps": optim.clip_low,
            "temperature": rollout.temperature,
            "entropy": optim.entropy,
            "clip_low": optim.clip_low,
            "clip_high": optim.clip_high,
            "dual_clip": optim.dual_clip,
        },
    }
    if engine.recompute:
        ours |= {
            "activations_checkpoint_granularity": "full",
            "activations_checkpoint_method": "uniform",
            "activations_checkpoint_num_layers": 1,
        }
    if on_cpu:
        ours |= {
            "transformer_engine": False,
            "use_cpu_initialization": True,
            "persist_layer_norm": False,
            "masked_softmax_fusion": False,
            "get_attention_mask_from_fusion": False,
            "grad_div_ar_fusion": False,
            "apply_rope_fusion": False,
        }
    if aligner.tokenizer:
        ours["tokenizer"] = {"library": "huggingface", "type": aligner.tokenizer, "model": None, "use_fast": True}
    merged = OmegaConf.merge(model, ours)
    if str(merged.tokenizer.get("library")) != "huggingface" or not Path(str(merged.tokenizer.get("type"))).is_dir():
        raise UserError(
            f"the tokenizer of {config.model.path} ({merged.tokenizer.get('type')}) is no Hugging Face directory here: "
            "give one with aligner.tokenizer=DIR"
        )
    assert isinstance(merged, DictConfig)
    return merged


def _optimizer(config: RunConfig, on_cpu: bool) -> dict[str, Any]:
    optim = config.optim
    # Apex's, sharded over data-parallel ranks, is NeMo-Aligner's own choice; without CUDA there is torch's.
    name = "adamw" if on_cpu else "distributed_fused_adam" if config.engine.distributed_optimizer else "fused_adam"
    settings = {"name": name, "lr": optim.lr, "weight_decay": optim.weight_decay, "betas": [optim.beta1, optim.beta2], "eps": optim.eps}
    if optim.lr_warmup_steps:
        steps = max(config.selfplay.steps, optim.lr_warmup_steps + 1)
        schedule = {
            "name": "CosineAnnealing",
            "warmup_steps": optim.lr_warmup_steps,
            "constant_steps": 0,
            "min_lr": optim.lr,
            "max_steps": steps,
        }
        settings["sched"] = schedule
    return settings


def build(config: RunConfig, restore_path: Path) -> tuple[Any, SelfPlayActor, Any, Any]:
    """Lightning's trainer, the actor with the weights of restore_path, its optimizer and its scheduler; the process group and Megatron's layout
    with them. Raises UserError for what does not fit."""
    without_cuda = cpu.without_cuda()
    described = read_model_config(restore_path)
    aligner_layout.check_model(config, described)
    for leftover in ("target", "nemo_version"):
        described.pop(leftover, None)
    model = actor_config(config, described, without_cuda)
    ranks, local = aligner_layout.world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    whole = OmegaConf.create(
        {
            "trainer": {
                "accelerator": "cpu" if without_cuda else "gpu",
                "devices": local,
                "num_nodes": ranks // local,
                "precision": model.precision,
                "logger": False,
                "enable_checkpointing": False,
                "use_distributed_sampler": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "max_steps": config.selfplay.steps,
                "ppo": {},
            },
            "model": model,
            "exp_manager": {"log_tflops_per_sec_per_gpu": False},
        }
    )
    trainer = resolve_and_create_trainer(whole, "ppo")
    named = whole.model.tokenizer.type
    with readable(Path(named)) as tokenizer:
        whole.model.tokenizer.type = str(tokenizer)
        actor = load_from_nemo(SelfPlayActor, whole.model, trainer, strict=True, restore_path=str(restore_path))
    actor.cfg.tokenizer.type = named  # as its checkpoints shall say
    init_distributed(trainer, actor, bool(model.get("transformer_engine", False)))
    if without_cuda:
        cpu.seed_model_parallel(config.seed)
        set_threads(config.engine.threads)
    init_using_ptl(trainer, actor, None, None)
    optimizer, scheduler = extract_optimizer_scheduler_from_ptl_model(actor)
    if config.rollout.name == "trtllm":
        import tensorrt_llm

        aligner_layout.check_mpi_ranks(tensorrt_llm.mpi_rank(), torch.distributed.get_rank())
    return trainer, actor, optimizer, scheduler


def ppo_config(config: RunConfig) -> DictConfig:
    """What PPOTrainer reads. There is neither a KL penalty nor GAE: advantages are TRR++'s."""
    return OmegaConf.create(
        {
            "max_epochs": 1,
            "max_steps": config.selfplay.steps,
            "val_check_interval": config.eval.every if config.eval.items or config.eval.suites else 0,
            "save_interval": config.checkpoint.every,
            "gradient_clip_val": config.optim.grad_clip or float("inf"),  # at 0 NeMo would not even measure the norm
            "initial_policy_kl_penalty": 0.0,
            "use_absolute_kl": True,
            "discount_factor": 1.0,
            "gae_lambda": 1.0,
            "normalize_advantages": False,
            "rollout_batch_seq_length": None,
            "critic_warmup_steps": 0,
            "model_gbs": aligner_layout.global_batch_size(config),
            "model_mbs": config.aligner.micro_batch,
            "trt_llm": aligner_layout.trtllm_section(config),
        }
    )
