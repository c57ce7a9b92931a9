"""Tiny models of every supported family, with a byte-level tokenizer, and a rollout engine that needs no model."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest
from azr_nemo.selfplay.exchange import TrainingBatch
from azr_nemo.settings.schema import RunConfig

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "eos_token_id": 256,
    "bos_token_id": None,
    "pad_token_id": None,
}
# 257 is odd on purpose: two tensor-parallel ranks must pad it.
VOCAB = 257
NEWEST = 1_000_000  # a version that no test's weights reach: a row that they have just drawn
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama-tied": lambda: LlamaConfig(**SIZES, vocab_size=VOCAB, tie_word_embeddings=True),
    "llama-untied": lambda: LlamaConfig(
        **SIZES,
        vocab_size=VOCAB,
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "qwen2-tied": lambda: Qwen2Config(**SIZES, vocab_size=VOCAB, tie_word_embeddings=True, rms_norm_eps=1e-6),
    "qwen2-untied": lambda: Qwen2Config(**SIZES, vocab_size=VOCAB, tie_word_embeddings=False),
    "qwen3": lambda: Qwen3Config(**SIZES, vocab_size=VOCAB, head_dim=16, tie_word_embeddings=True),
}


def write_model(folder: Path, family: str, dtype: torch.dtype = torch.float32) -> Path:
    """A Hugging Face directory with random weights, large enough that predictions are far from uniform, biases and norms included."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(dtype).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return folder


def run_config(dtype: str = "float32", **engine: int) -> RunConfig:
    config = RunConfig(platform="cpu")
    config.model.dtype = dtype
    config.optim.lr = 1e-2
    config.engine.threads = 1
    config.engine.micro_batch_tokens = 64
    for name, value in engine.items():
        setattr(config.engine, name, value)
    return config


def training_batch(rows: int = 7, seed: int = 0) -> TrainingBatch:
    """Rows of unequal length with random advantages, some of which answer the same prompt."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCAB, (count,), generator=generator).tolist())

    responses = [ids(2 + 3 * (row % 4)) for row in range(rows)]
    prompts = [ids(3 + row) for row in range(rows)]
    mask = torch.zeros(rows, max(map(len, responses)))
    for row, response in enumerate(responses):
        mask[row, : len(response)] = 1
    return TrainingBatch(
        prompt_ids=[prompts[row % 4 if row != 5 else 2] for row in range(rows)],
        response_ids=responses,
        rollout_logprobs=-3 * mask,
        mask=mask,
        advantages=torch.randn(mask.shape, generator=generator) * mask,
        rewards=torch.zeros(rows),
        groups=torch.zeros(rows, dtype=torch.long),
        versions=torch.full((rows,), NEWEST),
    )


class EchoRollout(RolloutEngine):
    """Answers with the prompt's first token, the sample's number and the request's seed, and remembers the weights it was given."""

    def __init__(self, *_: object) -> None:
        self.weights: dict[str, Tensor] = {}
        self.refits = self.version = 0

    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        self.weights = {name: tensor.clone() for name, tensor in weights}
        self.refits += 1
        self.version = version

    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        results: list[list[Sample]] = []
        for index, request in enumerate(requests):
            results.append([])
            for k in range(request.samples):
                number = request.first + k
                ids = (request.prompt_ids[0], number, request.seed % VOCAB)
                results[-1].append(Sample(ids, (-0.5, -0.25 * number, -1e-9 * request.seed), number % 2 == 0, self.version))
                if on_sample is not None:
                    on_sample(index, k, results[-1][-1])
        return results
