"""Settings of engine=aligner that cannot work are refused before anything is imported; these tests run in either environment."""

import importlib.util

import pytest
from command_line import azr
from omegaconf import OmegaConf

from azr_nemo.errors import UserError
from azr_nemo.planning.aligner_layout import check_model, check_mpi_ranks, global_batch_size
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.schema import RunConfig

LLAMA = {
    "num_attention_heads": 32, "num_query_groups": 8, "ffn_hidden_size": 14336, "override_vocab_size": 128256, "num_layers": 32,
    "encoder_seq_length": 131072, "qkv_bias": False,
}  # fmt: skip


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_settings(["recipe=tiny-1n0g-megatron", "engine=aligner", "rollout=nemo", "warmup.steps=0", "eval.items=0", *overrides])
    return str(caught.value)


def refused_model(config: RunConfig, **changes) -> str:
    with pytest.raises(UserError) as caught:
        check_model(config, OmegaConf.create({**LLAMA, **changes}))
    return str(caught.value)


@pytest.fixture
def trtllm() -> RunConfig:
    config = RunConfig()
    config.rollout.name = "trtllm"
    config.model.path = "model.nemo"
    return config


@pytest.mark.parametrize(
    ("override", "has"),
    [
        ("optim.loss=gspo", "ppo alone"),
        ("optim.aggregation=sequence_mean", "token_mean alone"),
        ("optim.mini_batches=2", "1 alone"),
        ("optim.importance_sampling=metrics", "off alone"),
        ("optim.lr_decay_steps=5", "0 alone"),
        ("model.fp32_logits=true", "the model's dtype"),
    ],
)
def test_what_the_update_does_not_have_here_is_refused_by_name(override, has):
    sentence = refused(override)
    assert sentence.startswith(f"{override}: engine=aligner")
    assert has in sentence
    assert sentence.endswith("use engine=megatron")


def test_a_prompt_style_with_stop_strings_is_refused():
    assert refused("selfplay.prompt_style=code").startswith("selfplay.prompt_style=code ends answers by stop strings of each prompt")


def test_a_stop_string_with_a_comma_is_refused():
    assert "has a comma" in refused("rollout.name=trtllm", "aligner.stop_strings=['a,b']")


def test_a_model_type_that_nemo_does_not_export_is_refused_with_what_to_use():
    sentence = refused("rollout.name=trtllm", "aligner.model_type=qwen2")
    assert "gemma" in sentence
    assert "rollout=nemo" in sentence


def test_a_qwen2_base_is_refused_for_tensorrt_with_what_to_use_instead(trtllm):
    sentence = refused_model(trtllm, qkv_bias=True)
    assert "biases" in sentence
    assert "use rollout=nemo, or engine=megatron with rollout=trtllm" in sentence


def test_a_qwen3_is_refused_because_nemo_would_leave_out_a_part_of_it(trtllm):
    assert "normalises queries and keys (Qwen3), which NeMo 2.1 leaves out: use engine=megatron" in refused_model(trtllm, qk_layernorm=True)


def test_a_qwen2_base_is_sampled_by_nemo(trtllm):
    trtllm.rollout.name = "nemo"
    check_model(trtllm, OmegaConf.create({**LLAMA, "qkv_bias": True}))


def test_a_llama_base_is_served(trtllm):
    check_model(trtllm, OmegaConf.create(LLAMA))


def test_prompt_and_response_must_fit_the_models_sequence(trtllm):
    assert "encoder_seq_length=4096" in refused_model(trtllm, encoder_seq_length=4096)


def test_an_mpi_rank_that_is_not_the_torch_rank_is_refused():
    check_mpi_ranks(3, 3)
    with pytest.raises(UserError, match="srun --mpi=pmix"):
        check_mpi_ranks(0, 3)


@pytest.mark.parametrize(("tensor_parallel", "named"), [(3, "num_attention_heads=32"), (16, "num_query_groups=8")])
def test_tensor_parallelism_must_divide_the_model(trtllm, tensor_parallel, named):
    trtllm.engine.tensor_parallel = tensor_parallel
    assert named in refused_model(trtllm)


def test_pipeline_parallelism_must_divide_the_layers(trtllm):
    trtllm.engine.pipeline_parallel = 5
    assert "32 layers" in refused_model(trtllm)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("rollout.name=torch", "rollout=nemo"),
        ("warmup.steps=3", "warmup.steps"),
        ("selfplay.reuse_estimates=true", "reuse_estimates"),
        ("selfplay.known_answers=true", "known_answers"),
        ("selfplay.replay=2", "selfplay.replay=2: engine=aligner trains on equally many rows every step; set it to 0"),
        ("advantage.easy_success_weight=0.3", "easy_success_weight=0.3"),
        ("advantage.failure_weight=0", "failure_weight=0"),
        ("eval.stop_if_worse=0.1", "stop_if_worse"),
        ("aligner.checkpoint_format=pickle", "zarr, torch_dist"),
        ("aligner.micro_batch=0", "aligner.micro_batch"),
    ],
)
def test_what_this_engine_does_not_have_is_refused(override, named):
    assert named in refused(override)


def test_validation_must_fall_on_checkpoints():
    assert "multiple of eval.every=4" in refused("eval.items=5", "eval.every=4", "checkpoint.every=10")


def test_nemos_generate_is_not_for_the_default_engine():
    with pytest.raises(UserError, match="rollout=nemo is not for engine=megatron"):
        load_settings(["recipe=tiny-1n0g-megatron", "rollout=nemo"])


def test_the_global_batch_is_whole_micro_batches_on_every_rank(monkeypatch):
    config = RunConfig()
    config.selfplay.batch_size, config.aligner.micro_batch, config.engine.tensor_parallel = 5, 4, 2
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert global_batch_size(config) == 36  # 30 rows, in micro-batches of 4 on 3 data-parallel ranks


@pytest.mark.skipif(importlib.util.find_spec("nemo_aligner") is not None, reason="NeMo-Aligner is here")
def test_without_nemo_aligner_one_sentence_says_where_it_is(tmp_path):
    settings = ["recipe=tiny-1n0g-megatron", "engine=aligner", "rollout=nemo", "warmup.steps=0", "eval.items=0"]
    done = azr("train", *settings, f"run_dir={tmp_path}")
    assert done.returncode == 2
    assert "make aligner" in done.stderr
    assert "Traceback" not in done.stderr
