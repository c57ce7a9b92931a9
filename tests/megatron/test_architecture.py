import pytest
import torch
from tiny_models import CONFIGS, SIZES
from transformers import GPT2Config, LlamaConfig, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import check_layout, inverse_frequencies, read_architecture

SMOLLM2 = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536}


def test_sizes_are_read_from_every_family() -> None:
    for name, make in CONFIGS.items():
        model = read_architecture(make())
        assert (model.layers, model.heads, model.kv_heads, model.ffn) == (4, 4, 2, 48)
        assert model.tied == (not name.endswith("untied"))
        assert model.head_dim == (16 if name == "qwen3" else 8)
        assert model.qkv_bias == name.startswith("qwen2")
        assert model.qk_norm == (name == "qwen3")


def test_the_vocabulary_is_padded_to_equal_parts() -> None:
    model = read_architecture(CONFIGS["llama-tied"]())
    assert (model.padded_vocab(1), model.padded_vocab(2)) == (257, 258)


@pytest.mark.parametrize("kind", ["default", "linear", "llama3"])
def test_rotary_frequencies_are_those_of_transformers(kind: str) -> None:
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = LlamaConfig(**{**SIZES, "hidden_size": 512}, rope_parameters={**rope, "original_max_position_embeddings": 128})
    if kind == "default":
        expected = 1 / 10000 ** (torch.arange(0, 128, 2).float() / 128)
    else:
        expected, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
        assert scale == 1
    torch.testing.assert_close(inverse_frequencies(config), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (GPT2Config(), "architecture 'gpt2' is not supported: use one of llama, qwen2, qwen3"),
        (LlamaConfig(**SIZES, hidden_act="gelu"), "hidden_act=gelu"),
        (LlamaConfig(**SIZES, attention_bias=True), "attention_bias=True"),
        (LlamaConfig(**SIZES, mlp_bias=True), "mlp_bias=True"),
        (Qwen2Config(**SIZES, use_sliding_window=True), "use_sliding_window=True"),
        (LlamaConfig(**SIZES, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}), "rope type 'yarn'"),
    ],
)
def test_what_megatron_would_compute_differently_is_refused(config: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_architecture(config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ((2, 1, 2), "engine.tensor_parallel=2 does not divide the model's 9 attention heads and 3 kv heads: use 1 or 3"),
        ((0, 1, 1), "engine.tensor_parallel=0 does not divide"),
        ((1, 4, 4), "engine.pipeline_parallel=4 does not divide the model's 30 layers: use 1, 2, 3, 5, 6, 10, 15 or 30"),
        ((3, 2, 4), "needs a multiple of 6 ranks, but the job has 4: start it with torchrun --nproc-per-node 6"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_with_what_would(layout: tuple[int, int, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_layout(LlamaConfig(**SMOLLM2), *layout)


@pytest.mark.parametrize("layout", [(1, 1, 1), (3, 1, 3), (1, 5, 10), (3, 2, 12)])
def test_a_layout_that_fits_passes(layout: tuple[int, int, int]) -> None:
    check_layout(LlamaConfig(**SMOLLM2), *layout)


def test_the_feed_forward_width_counts_too() -> None:
    config = LlamaConfig(**{**SIZES, "intermediate_size": 49})
    with pytest.raises(UserError, match="feed-forward width 49: use 1"):
        check_layout(config, 2, 1, 2)
