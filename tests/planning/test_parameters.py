"""Counts of parameters are those of the models that Megatron builds, whole and cut."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_server import shared

from azr_nemo.megatron.architecture import Architecture, read_architecture
from azr_nemo.models.shape import architectures, published
from azr_nemo.planning.parameters import (
    layer_parameters,
    multiplied_parameters,
    stage_parameters,
    total_parameters,
    vocabulary_parameters,
)

HERE = Path(__file__).parent

# The counts that the models' own cards and safetensors files give.
KNOWN = {
    "qwen2_5_coder_0_5b": 494_032_768,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "llama3_1_8b": 8_030_261_248,
    "smollm2_135m": 134_515_008,
}


@pytest.mark.parametrize(("name", "count"), KNOWN.items())
def test_published_models_have_the_parameters_that_are_published(name: str, count: int) -> None:
    assert total_parameters(read_architecture(published(name))) == count


@pytest.mark.parametrize("name", architectures())
def test_a_shape_has_the_parameters_that_transformers_gives_it(name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    config = published(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert total_parameters(read_architecture(config)) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
def test_every_rank_holds_what_megatron_gives_it() -> None:
    done = shared().start([], script=HERE / "built_ranks.py").wait()
    assert done.code == 0, done.output
    built = json.loads(done.output.splitlines()[-1])
    assert len(built) == 4 * 3 * 2  # families, layouts, first and last rank
    for row in built:
        model = Architecture(**row["model"])
        assert stage_parameters(model, row["tensor"], row["pipeline"], row["stage"]) == row["count"], row


@st.composite
def models(draw: st.DrawFn) -> Architecture:
    kv_heads = draw(st.sampled_from([2, 4, 8]))
    heads = kv_heads * draw(st.integers(1, 8))
    return Architecture(
        family=draw(st.sampled_from(["llama", "qwen2", "qwen3"])), layers=4 * draw(st.integers(1, 20)), hidden=64 * draw(st.integers(1, 80)),
        heads=heads, kv_heads=kv_heads, head_dim=draw(st.sampled_from([64, 128])), ffn=256 * draw(st.integers(1, 100)),
        vocab=draw(st.integers(300, 200_000)), positions=4096, norm_eps=1e-5, tied=draw(st.booleans()), rope_theta=1e4,
    )  # fmt: skip


@given(models(), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]))
def test_ranks_together_hold_the_model_with_what_is_copied(model: Architecture, tensor: int, pipeline: int) -> None:
    together = tensor * sum(stage_parameters(model, tensor, pipeline, stage) for stage in range(pipeline))
    norms = model.layers * (2 * model.hidden + (2 * model.head_dim if model.qk_norm else 0)) + model.hidden
    padding = (model.padded_vocab(tensor) - model.vocab) * model.hidden * (1 if model.tied and pipeline == 1 else 2)
    second_table = tensor * vocabulary_parameters(model, tensor) - padding // 2 if model.tied and pipeline > 1 else 0
    assert together == total_parameters(model) + (tensor - 1) * norms + padding + second_table


@given(models())
def test_what_tokens_are_multiplied_with_is_the_model_without_tables_biases_and_norms(model: Architecture) -> None:
    biases = model.head_dim * (model.heads + 2 * model.kv_heads) if model.qkv_bias else 0
    norms = 2 * model.hidden + (2 * model.head_dim if model.qk_norm else 0)
    assert multiplied_parameters(model) == model.layers * (layer_parameters(model) - norms - biases)
