"""Bytes of a rank: by hand, against what autograd and torch's allocator really hold, and by the laws that any layout obeys."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sizings import MODEL, make_sizing
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from azr_nemo.megatron import distributed, head, layers
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.megatron.batches import pack
from azr_nemo.megatron.model import build_model
from azr_nemo.megatron.platform import Platform, choose_platform
from azr_nemo.planning import memory as planned
from azr_nemo.planning.memory import cache_bytes, checkpoint_bytes, decode_bytes, kept_by_layer, memory, replica_bytes
from azr_nemo.planning.sizing import Layout, MicroBatch, Rollouts, Sizing, largest_micro_batch
from azr_nemo.rollout.torch import decoder, torch_rollout
from azr_nemo.rollout.torch import decoder as decode
from azr_nemo.selfplay.exchange import Example
from azr_nemo.settings.schema import RunConfig

PARAMETERS = 4 * 12_352 + 2 * 100 * 32 + 32


@pytest.fixture(scope="module")
def platform() -> Platform:
    platform = choose_platform("cpu")
    distributed.start(platform, 1, 1)
    torch.set_num_threads(1)
    return platform


def test_state_is_weights_fp32_gradients_masters_and_moments() -> None:
    size = make_sizing()
    found = memory(size)
    assert (found.weights, found.gradients, found.optimizer) == (2 * PARAMETERS, 4 * PARAMETERS, 12 * PARAMETERS)
    assert found.replica == 2 * PARAMETERS


def test_float32_has_no_masters() -> None:
    found = memory(make_sizing(width=4))
    assert (found.weights, found.gradients, found.optimizer) == (4 * PARAMETERS, 4 * PARAMETERS, 8 * PARAMETERS)


def test_the_distributed_optimizer_is_shared_and_the_gradients_are_not() -> None:
    found = memory(make_sizing(layout=Layout(data=4), distributed_optimizer=True))
    assert (found.gradients, found.optimizer) == (4 * PARAMETERS, 3 * PARAMETERS)


def test_the_last_stage_has_the_logits_and_the_first_most_micro_batches() -> None:
    size = make_sizing(layout=Layout(pipeline=2), micro_batch_tokens=10, model=replace(MODEL, vocab=1000))
    first, last = (planned.stage_memory(size, stage) for stage in range(2))
    layer, stream = kept_by_layer(size, 1000), 1000 * 32 * 2
    assert first.activations == 2 * (2 * layer + stream)
    assert last.activations == 2 * layer + stream + 500 * 32 * 2
    assert first.scratch < last.scratch


def test_fp32_logits_are_twice_as_wide_where_the_model_is_not() -> None:
    size = make_sizing(model=replace(MODEL, vocab=1000))
    wide = memory(replace(size, fp32_logits=True)).scratch - memory(size).scratch
    assert wide == 500 * 1000 * 2 + 2 * (500 * 32 + 1000 * 32) * 2  # logits; gradients of hidden states and table before they are rounded
    assert memory(replace(size, width=4, fp32_logits=True)) == memory(replace(size, width=4))


def test_recomputation_keeps_each_layers_input_and_one_layer() -> None:
    found = memory(make_sizing(recompute=True, model=replace(MODEL, layers=40)))
    stream = 1000 * 32 * 2
    assert found.activations == 41 * stream + 500 * 32 * 2
    assert found.scratch > kept_by_layer(make_sizing(), 1000)


def test_keys_and_values_are_counted_for_a_kv_head_at_least() -> None:
    assert cache_bytes(make_sizing(), 10) == 10 * 2 * 4 * 2 * 8 * 2
    cut = [cache_bytes(make_sizing(rollouts=Rollouts("trtllm", tensor, 0.5, 8, 100, 28)), 10) for tensor in (1, 2, 4)]
    assert cut == [2560, 1280, 1280]


def test_trtllm_takes_its_share_of_what_the_trainer_has_left_before_adam_has_moments() -> None:
    size = make_sizing(rollouts=Rollouts("trtllm", 2, 0.25, 8, 100, 28), capacity=10**9)
    found = memory(size)
    assert found.cache == int(0.25 * (10**9 - (2 + 4 + 4) * PARAMETERS - PARAMETERS))
    assert found.training == found.state + found.step + found.cache


def test_vllm_on_a_cpu_is_counted_with_its_processes_its_pool_and_the_weights_in_shared_memory() -> None:
    size = make_sizing(rollouts=Rollouts("vllm", 1, 0.5, 8, 100, 28, pool=1 << 20), gpus_per_node=0)
    found = memory(size)
    assert found.replica == planned.SERVER_BYTES + 2 * (2 * PARAMETERS)  # the server's and what it was handed, two bytes each
    assert found.cache == 1 << 20
    assert found.training == found.state + round(found.step * (1 + planned.HOLES)) + found.cache
    assert found.generating == found.state - found.gradients + round(found.cache * (1 + planned.HOLES))


def test_gradients_have_no_memory_while_a_rank_samples_unless_they_are_to_keep_it() -> None:
    size = make_sizing()
    found = memory(size)
    assert found.generating == found.state - found.gradients + found.cache
    kept = memory(replace(size, offload_gradients=False))
    assert kept.generating == kept.state + kept.cache


def test_a_checkpoint_takes_the_hosts_memory_for_this_ranks_part_once() -> None:
    found = memory(make_sizing(layout=Layout(data=4), distributed_optimizer=True))
    assert found.snapshot == found.weights + found.optimizer == 5 * PARAMETERS
    assert found.peak == max(found.training, found.generating)


def test_the_decode_in_this_process_gives_its_cache_and_its_weights_back_before_training() -> None:
    size = make_sizing()
    found = memory(size)
    assert found.cache == decode_bytes(size)
    assert found.peak == max(found.state - found.replica + found.step, found.state + found.cache)


def test_embeddings_that_are_not_trained_have_neither_gradients_nor_moments() -> None:
    whole, frozen = memory(make_sizing()), memory(make_sizing(frozen=True))
    tables = 2 * 100 * 32
    assert frozen.weights == whole.weights
    assert whole.gradients - frozen.gradients == 4 * tables
    assert whole.optimizer - frozen.optimizer == (4 + 8) * tables


def test_a_tied_head_is_packed_beside_the_embedding_on_a_cpu_alone() -> None:
    tied = replace(MODEL, tied=True)
    gpu, on_cpu = make_sizing(model=tied), make_sizing(model=tied, gpus_per_node=0)
    assert replica_bytes(on_cpu) - replica_bytes(gpu) == 100 * 32 * 2


def test_a_checkpoint_has_weights_masters_and_moments() -> None:
    assert (checkpoint_bytes(1000, 2), checkpoint_bytes(1000, 4)) == (14_000, 12_000)


def test_a_row_longer_than_a_micro_batch_is_one() -> None:
    assert largest_micro_batch(4096, 6144, 8096, 1536) == MicroBatch(14_239, 8096, 14_239)
    assert largest_micro_batch(2048, 512, 96, 128) == MicroBatch(2048, 878, 224)


def test_rows_of_one_prompt_are_a_block() -> None:
    assert largest_micro_batch(2048, 512, 96, 128, answers=3) == MicroBatch(2048, 1418, 128 + 3 * 96)
    assert largest_micro_batch(2048, 512, 96, 128, answers=99) == MicroBatch(2048, 1536, 128 + 4 * 96)
    assert largest_micro_batch(2048, 1024, 600, 128, answers=8) == largest_micro_batch(2048, 1024, 600, 128)


def test_constants_are_those_of_the_code() -> None:
    assert {False: head.BLOCK["cpu"], True: head.BLOCK["cuda"]} == planned.BLOCKS
    assert planned.SHORT == layers.SHORT
    assert (planned.CHUNK, planned.PREFILL_TOKENS, planned.VACANT) == (decoder.CHUNK, decode.PREFILL_TOKENS, torch_rollout.VACANT)


SIZES = {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 160, "vocab_size": 300}
FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": lambda **more: LlamaConfig(**SIZES, **more),
    "qwen2": lambda **more: Qwen2Config(**SIZES, **more),
    "qwen3": lambda **more: Qwen3Config(**SIZES, head_dim=16, **more),
}


@pytest.mark.parametrize("lengths", [(100, 100), (600, 600)], ids=["short rows", "long rows"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_keeps_what_autograd_keeps(family: str, lengths: tuple[int, ...], platform: Platform) -> None:
    def kept(layers: int) -> int:
        config = FAMILIES[family](num_hidden_layers=layers)
        model = build_model(config, platform, RunConfig().engine, torch.float32)
        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        storages = {}

        def pack_hook(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()  # held here, so that no other takes its address
            if storage.data_ptr() not in parameters:
                storages[storage.data_ptr()] = storage
            return tensor

        prompts, responses = [[1] * (length // 2) for length in lengths], [[2] * (length // 2 + 1) for length in lengths]
        batch = pack(prompts, responses, torch.ones(len(lengths), max(lengths) // 2 + 1), 10**6)[0]
        with platform.scope(), torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
            model(
                batch.tokens,
                batch.positions(),
                None,
                labels=batch.targets,
                loss_mask=batch.learnt,
                packed_seq_params=batch.packed(platform.device),
            )
        return sum(storage.nbytes() for storage in storages.values())

    model = read_architecture(FAMILIES[family](num_hidden_layers=2))
    size = make_sizing(model=model, width=4, gpus_per_node=0, batch=MicroBatch(sum(lengths), 1, lengths[0]))
    assert kept(3) - kept(2) == kept_by_layer(size, sum(lengths))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("vocab", "row", "answers"), [(20_000, 200, 1), (500, 200, 1), (500, 700, 1), (20_000, 100, 7), (500, 100, 7)])
def test_a_step_allocates_at_its_peak_what_is_computed(
    vocab: int, row: int, answers: int, recompute: bool, platform: Platform, tmp_path: Path
) -> None:
    """A row is a prompt and its `answers`."""
    sizes = {**SIZES, "hidden_size": 128, "intermediate_size": 320, "vocab_size": vocab, "num_hidden_layers": 6}
    config = RunConfig(platform="cpu")
    config.engine.recompute, config.engine.micro_batch_tokens, config.model.dtype = recompute, 1400, "float32"
    shape = LlamaConfig(**sizes, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    actor = Actor(config, shape, platform, tmp_path)
    block = row // 2 + answers * (row // 2 + 1) - 1
    rows = [Example((i,) + (1,) * (row // 2 - 1), (2,) * (row // 2 + 1)) for i in range(1400 // block) for _ in range(answers)]
    actor.supervise(rows)  # makes the moments
    actor.model.restore_grad_buffers(synchronize=False)  # gradients are counted apart from what a step allocates
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        actor.supervise(rows)
    events = sorted(
        (event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"), key=lambda event: event.start_ns()
    )
    peak = max(itertools.accumulate(event.nbytes() for event in events))
    batch = MicroBatch(1400 // block * block, len(rows) * (row // 2 + 1), block)
    size = make_sizing(model=read_architecture(shape), width=4, gpus_per_node=0, recompute=recompute, batch=batch)
    assert 0.95 < memory(size).step / peak < 1.15


@st.composite
def sizings(draw: st.DrawFn) -> Sizing:
    """Of models that can be cut in eight by tensor and in four by pipeline."""
    kv_heads, hidden = draw(st.sampled_from([8, 16])), 256 * draw(st.integers(4, 24))
    model = replace(
        MODEL, family=draw(st.sampled_from(["llama", "qwen2", "qwen3"])), layers=4 * draw(st.integers(4, 20)), hidden=hidden,
        heads=kv_heads * draw(st.integers(1, 5)), kv_heads=kv_heads, head_dim=128, ffn=hidden * draw(st.integers(2, 4)),
        vocab=draw(st.integers(1000, 160_000)), tied=draw(st.booleans()),
    )  # fmt: skip
    tokens = draw(st.integers(512, 20_000))
    return make_sizing(
        model=model,
        layout=Layout(data=draw(st.sampled_from([1, 2, 8])), sequence_parallel=draw(st.booleans())),
        width=draw(st.sampled_from([2, 4])),
        recompute=draw(st.booleans()),
        distributed_optimizer=draw(st.booleans()),
        batch=MicroBatch(tokens, draw(st.integers(1, tokens)), tokens),
        rollouts=draw(st.sampled_from([Rollouts("torch", 1, 0.5, 64, 1000, 500), Rollouts("trtllm", 2, 0.3, 64, 1000, 500)])),
        gpus_per_node=draw(st.sampled_from([0, 8])),
        capacity=80 * 10**9,
    )


@given(sizings())
def test_more_tensor_parallelism_never_needs_more(size: Sizing) -> None:
    peaks = [memory(replace(size, layout=replace(size.layout, tensor=tensor))).peak for tensor in (1, 2, 4, 8)]
    assert peaks == sorted(peaks, reverse=True)


@given(sizings())
def test_more_stages_never_need_more_weights_gradients_or_optimizer(size: Sizing) -> None:
    untied = replace(size, model=replace(size.model, tied=False))
    found = [memory(replace(untied, layout=replace(size.layout, pipeline=pipeline))) for pipeline in (1, 2, 4)]
    states = [one.weights + one.gradients + one.optimizer for one in found]
    assert states == sorted(states, reverse=True)


@given(sizings())
def test_the_distributed_optimizer_shrinks_with_data_parallelism_and_nothing_else_does(size: Sizing) -> None:
    size = replace(size, distributed_optimizer=True)
    one, four = (memory(replace(size, layout=replace(size.layout, data=data))) for data in (1, 4))
    assert four.optimizer <= one.optimizer / 4 + 1
    assert (four.weights, four.gradients, four.replica, four.step) == (one.weights, one.gradients, one.replica, one.step)


@given(sizings())
def test_recomputation_and_shorter_micro_batches_never_need_more(size: Sizing) -> None:
    plain = replace(size, recompute=False)
    assert memory(replace(size, recompute=True)).peak <= memory(plain).peak
    half = MicroBatch(size.batch.tokens // 2, size.batch.learnt // 2, size.batch.row)
    assert memory(replace(size, batch=half)).peak <= memory(size).peak
