"""Builds the first and the last rank of several layouts with Megatron, in one process without peers; prints how many parameters each has."""

import json
import os
from dataclasses import asdict, replace

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.megatron.model import build_model
from azr_nemo.megatron.platform import choose_platform
from azr_nemo.settings.schema import EngineConfig

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 301,
}
FAMILIES = (
    LlamaConfig(**SIZES, tie_word_embeddings=True),
    LlamaConfig(**SIZES, tie_word_embeddings=False),
    Qwen2Config(**SIZES, tie_word_embeddings=True),
    Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=False),
)
LAYOUTS = ((2, 1), (1, 2), (2, 2))  # tensor, pipeline


def main() -> None:
    platform, rows = choose_platform("cpu"), []
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0")
    for tensor, pipeline in LAYOUTS:
        world = tensor * pipeline
        for rank in (0, world - 1):
            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
            parallel_state.initialize_model_parallel(tensor, pipeline, create_gloo_process_groups=False)
            with platform.scope():
                tensor_parallel.model_parallel_cuda_manual_seed(1, inference_rng_tracker=True, force_reset_rng=True)
            for config in FAMILIES:
                engine = replace(EngineConfig(), tensor_parallel=tensor, pipeline_parallel=pipeline)
                model = build_model(config, platform, engine, torch.float32)
                count = sum(parameter.numel() for parameter in model.parameters())
                stage = parallel_state.get_pipeline_model_parallel_rank()
                rows.append(
                    {"model": asdict(read_architecture(config)), "tensor": tensor, "pipeline": pipeline, "stage": stage, "count": count}
                )
            parallel_state.destroy_model_parallel()
            dist.destroy_process_group()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
