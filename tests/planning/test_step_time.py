"""Seconds of a step: by hand where one thing decides, and by the laws that any machine obeys."""

from dataclasses import replace

import pytest
from sizings import MODEL, make_sizing

from azr_nemo.planning.parameters import multiplied_parameters
from azr_nemo.planning.sizing import Layout, Rollouts
from azr_nemo.planning.step_time import (
    A100,
    H100,
    H200,
    HANDOVER_S,
    WAKING_S,
    Hardware,
    cpu,
    generation_seconds,
    gpu,
    gradient_seconds,
    refit_seconds,
    step_time,
    training_operations,
    update_seconds,
)

# A machine without waiting: whole peaks, nothing to launch.
IDEAL = Hardware("ideal", 1e12, 1e9, 1e9, 1e8, training=1, prefill=1, decode=1, reading=1, talking=1, launch_s=0, latency_s=0)


def test_decoding_reads_the_weights_and_the_cache_once_a_step() -> None:
    size = make_sizing()
    # 4 samples of 10 tokens, at least 28 steps: on average 40 / 28 rows are alive, each with 55 tokens of context.
    weights = 2 * (multiplied_parameters(MODEL) + 100 * 32)
    read = 28 * weights + 40 * 55 * 2 * 4 * 2 * 8 * 2
    prefill = 4 * 50 * (2 * multiplied_parameters(MODEL) + 4 * 4 * 32 * 25)
    assert generation_seconds(size, IDEAL, 4, 1, 28, 10) == pytest.approx(read / 1e9 + prefill / 1e12)


def test_decoding_many_rows_is_bound_by_products() -> None:
    size = make_sizing(rollouts=Rollouts("torch", 1, 0.5, 10_000, 100, 28))
    slow = replace(IDEAL, flops=1e9, bandwidth=1e12)
    tokens = 1000 * 28
    products = tokens * (2 * (multiplied_parameters(MODEL) + 3200) + 4 * 4 * 32 * (50 + 14))
    prefill = 1000 * 50 * (2 * multiplied_parameters(MODEL) + 4 * 4 * 32 * 25)
    assert generation_seconds(size, slow, 1000, 1, 28, 28) == pytest.approx((products + prefill) / 1e9)


def test_training_is_six_operations_for_a_parameter_and_token_and_eight_when_recomputed() -> None:
    size = make_sizing()
    tokens, row = 8 * (50 + 15), 65
    layers = tokens * (2 * multiplied_parameters(MODEL) + 2 * 4 * 32 * row)
    head = 6 * 3200 * 8 * 15
    assert training_operations(size, recomputed=True) == pytest.approx(3 * layers + head)
    recomputed = replace(size, recompute=True)
    assert training_operations(recomputed, recomputed=True) == pytest.approx(4 * layers + head)
    assert update_seconds(size, IDEAL) == pytest.approx((3 * layers + head) / 1e12)


def test_mini_batches_cost_a_forward_pass_and_an_optimizer_step_each() -> None:
    size = make_sizing()
    several = replace(size, mini_batches=4)
    forward = training_operations(size, recomputed=True) / 3
    assert training_operations(several, recomputed=True) == pytest.approx(4 * forward)
    assert training_operations(several, recomputed=False) == training_operations(size, recomputed=False)  # MFU counts what learns
    assert gradient_seconds(several, IDEAL) == pytest.approx(4 * gradient_seconds(size, IDEAL))
    assert replace(several, micro_batch_tokens=65).micro_batches == 2  # of the eight rows


def test_a_pipeline_idles_for_one_micro_batch_a_stage() -> None:
    size = make_sizing(layout=Layout(pipeline=4), micro_batch_tokens=65)
    assert size.micro_batches == 8
    assert update_seconds(size, IDEAL) == pytest.approx(update_seconds(make_sizing(), IDEAL) / 4 * (1 + 3 / 8))


def test_tensor_parallelism_over_nodes_pays_for_the_fabric() -> None:
    within, across = (update_seconds(make_sizing(layout=Layout(tensor=2), gpus_per_node=gpus), IDEAL) for gpus in (2, 1))
    talk = 8 * 65 * 4 * 2 * 2 * 32 * 2 * 2 * (1 / 2)
    assert across - within == pytest.approx(talk / 1e8 - talk / 1e9)


def test_gradients_are_reduced_in_fp32_and_updated_weights_come_back_in_the_models_dtype() -> None:
    parameters = 4 * 12_352 + 2 * 3200 + 32
    plain = make_sizing(layout=Layout(data=2))
    assert gradient_seconds(plain, IDEAL) == pytest.approx(parameters * (34 + 8 / 2) / 1e9)
    sharded = replace(plain, distributed_optimizer=True)
    assert gradient_seconds(sharded, IDEAL) == pytest.approx(parameters * (34 / 2 + 6 / 2) / 1e9)


def test_a_refit_copies_the_model_and_gathers_what_was_cut() -> None:
    whole = 2 * (4 * 12_352 + 2 * 3200 + 32)
    assert refit_seconds(make_sizing(), IDEAL) == pytest.approx(3 * whole / 1e9)
    assert refit_seconds(make_sizing(layout=Layout(tensor=2)), IDEAL) == pytest.approx(3.5 * whole / 1e9)


def test_a_refit_sends_each_rank_its_slice_over_the_pipeline_and_hands_over_buckets() -> None:
    plain, cut = (refit_seconds(make_sizing(layout=layout), IDEAL) for layout in (Layout(pipeline=2), Layout(tensor=2, pipeline=2)))
    gathered = refit_seconds(make_sizing(layout=Layout(tensor=2)), IDEAL)
    copies = refit_seconds(make_sizing(), IDEAL)
    assert cut - gathered == pytest.approx((plain - copies) / 2)
    handed = refit_seconds(make_sizing(rollouts=Rollouts("trtllm", 1, 0.5, 8, 100, 28)), IDEAL)
    assert handed - copies == pytest.approx(HANDOVER_S + WAKING_S)


def test_weights_go_to_samplers_in_one_stream_over_gpus_and_by_the_branches_of_a_tree_over_cpus() -> None:
    whole = 2 * (4 * 12_352 + 2 * 3200 + 32)
    copies = refit_seconds(make_sizing(), IDEAL)
    assert refit_seconds(make_sizing(samplers=7), IDEAL) - copies == pytest.approx(whole / 1e9)
    assert refit_seconds(make_sizing(samplers=8), IDEAL) - copies == pytest.approx(whole / 1e8)  # a second node
    assert refit_seconds(make_sizing(samplers=7, gpus_per_node=0), IDEAL) - copies == pytest.approx(3 * whole / 1e8)


def test_a_step_is_the_sum_of_its_phases_and_its_mfu_is_below_what_was_assumed() -> None:
    time = step_time(make_sizing(recompute=True), H100)
    parts = sum(time.batches.values()) + time.update + time.gradients + time.refit
    assert time.total == pytest.approx(parts)
    assert 0 < time.mfu < H100.training
    assert time.sampled_tokens == 4 * 10 + (8 + 4) * 20
    assert time.trained_tokens == 8 * (50 + 15)


def test_more_gpus_and_faster_ones_take_no_longer() -> None:
    size = make_sizing(gpus_per_node=8)
    times = [step_time(replace(size, layout=Layout(data=data)), H100) for data in (1, 2, 4)]
    assert [time.generation for time in times] == sorted((time.generation for time in times), reverse=True)
    assert [time.update for time in times] == sorted((time.update for time in times), reverse=True)
    assert step_time(size, H200).total <= step_time(size, H100).total <= step_time(size, A100).total


def test_a_gpu_is_known_by_its_memory() -> None:
    assert [gpu(memory_gb) for memory_gb in (40, 80, 94, 141)] == [A100, H100, H100, H200]
    assert cpu(4).flops == 2 * cpu(2).flops
