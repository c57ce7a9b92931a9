"""Tiny random models of each family, and the requests that the rollout tests share."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import process_trees
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from azr_nemo.rollout import make_rollout
from azr_nemo.rollout.engine import RolloutEngine, SampleRequest
from azr_nemo.settings.machine import RolloutConfig, VllmConfig

VOCAB = 150
EOS = (1, 2)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "llama-tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama-head_dim": LlamaConfig(**SIZES, tie_word_embeddings=False, head_dim=12),
    "llama-llama3_rope": LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE),
    "qwen2-tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    # What every engine can decode: vLLM's attention on a CPU wants heads of 32 at least.
    "protocol": Qwen2Config(
        **SIZES | {"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 2048}, tie_word_embeddings=True
    ),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, tie_word_embeddings=False, head_dim=16),
    "qwen3-tied": Qwen3Config(**SIZES, tie_word_embeddings=True, head_dim=8),
}


def random_model(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Weights large enough that the distributions differ between positions and end tokens come up."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model


def decode(ids: Sequence[int]) -> str:
    """A text for random ids: one letter of five a token, and every seventh token three; end tokens have none, as special tokens."""
    return "".join("" if i in EOS else "xyz" if i % 7 == 0 else "abcde"[i % 5] for i in ids)


def engine(name: str, model: PreTrainedModel, rows: int = 64, eos: tuple[int, ...] = EOS, **settings: Any) -> RolloutEngine:
    """The engine, fitted with the model's weights, fp32 on CPU. vllm: at a server that all tests with this shape of model share, with settings of its
    own; trtllm: a stand-in."""
    if name == "vllm":
        made = vllm_client(model.config, eos, decode, **settings)
    else:
        device = torch.device("cuda", 0) if name == "trtllm" else torch.device("cpu")
        made = make_rollout(RolloutConfig(name=name, max_batch_rows=rows), model.config, torch.float32, list(eos), device, decode)
    made.refit(model.named_parameters())
    return made


_servers: dict[str, Any] = {}


def vllm_client(config: PretrainedConfig, eos: Sequence[int], decode: Callable[[Sequence[int]], str] | None, **own: Any) -> RolloutEngine:
    """An engine at the server of this shape of model, which is started by the first one and ends with the tests."""
    sizes = {"max_prompt_tokens": 256, "max_propose_tokens": 128, "max_solve_tokens": 1280, "max_batch_rows": 32}
    settings = VllmConfig(cpu_cache_mb=128, start_s=900.0, patience_s=300.0)
    key = config.to_json_string()
    if key not in _servers:
        for other in _servers.values():  # one at a time: each takes about 2 GB
            other.close()
        _servers.clear()
        _servers[key] = make_rollout(RolloutConfig(name="vllm", **sizes, vllm=settings), config, torch.float32, [1], torch.device("cpu"))
        process_trees.at_session_end(_servers[key].close)
    server = _servers[key]._server
    os.environ["AZR_NEMO_VLLM_SECRET"] = server.secret
    at = RolloutConfig(name="vllm", **sizes, vllm=settings, endpoints=[server.url], **own)
    return make_rollout(at, config, torch.float32, list(eos), torch.device("cpu"), decode)


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist())


def request(length: int, samples: int = 2, tokens: int = 12, temperature: float = 1.0, seed: int = 0) -> SampleRequest:
    return SampleRequest(prompt(length, seed), samples, tokens, temperature, 10 * length + seed)
