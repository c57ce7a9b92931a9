"""Plans of recipes: what fits, what is suggested, and what bad input is told."""

import re
from pathlib import Path

import pytest
from command_line import azr
from rich.console import Console as Terminal

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import check_layout
from azr_nemo.models.shape import model_shape
from azr_nemo.planning.plan import make_plan, nearest_that_fits
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.planning.sizing import ranks_of
from azr_nemo.planning.tables import overrides, sentences, table_of
from azr_nemo.settings.compose import recipes
from azr_nemo.settings.schema import RunConfig


def table_text(configs: list[RunConfig]) -> list[str]:
    terminal = Terminal(width=160)
    with terminal.capture() as capture:
        terminal.print(table_of(configs))
    return capture.get().splitlines()


MEGATRON = [name for name in recipes() if name.endswith("-megatron")]


@pytest.mark.parametrize("recipe", MEGATRON)
def test_every_recipe_fits_what_it_is_made_for(recipe: str) -> None:
    assert make_plan(load_settings([f"recipe={recipe}"])).fits


def test_a_cpu_takes_less_time_in_bfloat16_than_in_float32() -> None:
    half, whole = (make_plan(load_settings([f"model.dtype={dtype}"])) for dtype in ("bfloat16", "float32"))
    assert half.time.update < whole.time.update / 3
    assert half.time.batches["solve"] < whole.time.batches["solve"] / 3


def test_rows_that_are_learnt_from_again_are_counted_as_if_all_were_right() -> None:
    def rows(*settings: str) -> int:
        recipe = ["recipe=smollm2_135m-1n0g-megatron", "selfplay.reuse_estimates=false"]
        return make_plan(load_settings([*recipe, *settings])).size.work.rows

    config = load_settings(["recipe=smollm2_135m-1n0g-megatron"]).selfplay
    answers, proposals = config.batch_size * 3, config.proposed * 3
    assert rows() == answers + proposals
    assert rows("selfplay.replay=2") == 3 * answers + proposals
    estimates = proposals * load_settings(["recipe=smollm2_135m-1n0g-megatron"]).rollout.estimate_samples
    assert rows("selfplay.replay=1", "selfplay.reuse_estimates=true") == 2 * (answers + estimates) + proposals
    assert rows("selfplay.train_propose=false") == answers


TOO_LARGE = [
    ["recipe=qwen2_5_14b-1n8g-megatron", "engine.tensor_parallel=1", "engine.distributed_optimizer=false"],
    ["recipe=qwen2_5_14b-1n8g-megatron", "rollout=torch", "engine.recompute=false"],
    ["recipe=qwen2_5_32b-8n8g-megatron", "cluster.nodes=1", "engine.pipeline_parallel=1"],
    ["recipe=qwen2_5_7b-1n4g-megatron", "cluster.gpu_memory_gb=40"],
]


@pytest.mark.parametrize("settings", TOO_LARGE, ids=lambda settings: settings[0].partition("=")[2])
def test_what_is_suggested_fits_and_can_be_cut_that_way(settings: list[str]) -> None:
    config = load_settings(settings)
    assert not make_plan(config).fits
    found = nearest_that_fits(config)
    assert found is not None
    change, plan = found
    changed = load_settings([*settings, *overrides(change).split()])
    check_layout(model_shape(changed.model), changed.engine.tensor_parallel, changed.engine.pipeline_parallel, ranks_of(changed))
    assert make_plan(changed).memory == plan.memory
    assert plan.fits


def test_nothing_is_changed_where_the_recipe_fits() -> None:
    found = nearest_that_fits(load_settings(["recipe=qwen2_5_7b-1n4g-megatron"]))
    assert found is not None
    assert found[0] == {}


def test_one_setting_is_changed_where_one_is_enough() -> None:
    config = load_settings(["recipe=qwen2_5_7b-1n4g-megatron", "engine.distributed_optimizer=false", "rollout.memory_fraction=0.3"])
    found = nearest_that_fits(config)
    assert found is not None
    assert len(found[0]) == 1


def test_more_nodes_are_suggested_only_when_these_cannot_do_it() -> None:
    found = nearest_that_fits(load_settings(["recipe=qwen2_5_32b-8n8g-megatron", "cluster.nodes=1", "engine.pipeline_parallel=1"]))
    assert found is not None
    assert "cluster.nodes" not in found[0] or found[0]["cluster.nodes"] > 1


def test_what_can_never_fit_is_said_to_never_fit() -> None:
    config = load_settings(["recipe=qwen2_5_32b-8n8g-megatron", "cluster.gpu_memory_gb=1"])
    assert nearest_that_fits(config) is None
    assert "nothing that is near fits" in " ".join(sentences(config, make_plan(config)))


def test_a_layout_that_the_model_cannot_be_cut_into_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=3 does not divide"):
        make_plan(load_settings(["recipe=qwen2_5_7b-1n4g-megatron", "engine.tensor_parallel=3"]))
    with pytest.raises(UserError, match="needs a multiple of 8 ranks, but the job has 4"):
        make_plan(load_settings(["recipe=qwen2_5_7b-1n4g-megatron", "engine.tensor_parallel=4", "engine.pipeline_parallel=2"]))
    with pytest.raises(UserError, match=r"rollout\.tensor_parallel=3 does not divide"):
        make_plan(load_settings(["recipe=qwen2_5_7b-1n4g-megatron", "rollout.tensor_parallel=3"]))


def test_the_aligner_pads_rows_and_samples_with_the_trainers_weights() -> None:
    plan = make_plan(load_settings(["recipe=qwen2_5_7b-1n4g-aligner", "aligner.micro_batch=2"]))
    assert plan.size.batch.tokens == plan.size.batch.learnt == 2 * (6144 + 8096)
    assert plan.memory.replica == 0
    assert plan.memory.scratch > 2 * (6144 + 8096) * (152_064 // 2) * (
        2 + 4 + 4
    )  # logits of every position, and two blocks of them in fp32


def test_a_model_without_a_shape_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"model\.path=/nowhere is not a Hugging Face model directory"):
        make_plan(load_settings(["recipe=tiny-1n0g-megatron", "model.path=/nowhere"]))


def test_a_plan_prints_memory_time_and_what_fits() -> None:
    done = azr("plan", "recipe=qwen2_5_7b-1n4g-megatron", "cluster.gpu_memory_gb=40", "--response", "500")
    assert done.returncode == 1, done.stderr  # it does not fit
    assert "7.62B parameters on 1 x 4 x 40 GB" in done.stdout
    for part in ("weights", "gradients", "optimizer", "activations", "rollout replica", "keys and values", "peak", "refit", "step"):
        assert part in done.stdout
    assert "192 proposals of 500 tokens" in done.stdout
    assert re.search(r"40 GB \(the recipe's\): does not fit; nearest that does: \S+=\S+", done.stdout)
    assert "141 GB: fits" in done.stdout


@pytest.mark.slow
def test_all_recipes_are_one_table() -> None:
    lines = table_text([load_settings([f"recipe={name}"]) for name in recipes()])
    assert [name for name in recipes() if not any(name in line for line in lines)] == []
    assert len(lines) >= len(recipes()) + 5


def test_a_recipe_that_does_not_fit_or_cannot_be_cut_says_so_under_the_table() -> None:
    large = load_settings(["recipe=qwen2_5_7b-1n4g-megatron", "cluster.gpu_memory_gb=40"])
    uncut = load_settings(["recipe=qwen2_5_14b-1n8g-megatron", "engine.tensor_parallel=3"])
    text = " ".join(" ".join(table_text([large, uncut])).split())
    assert re.search(r"qwen2_5_7b-1n4g-megatron does not fit: nearest that does: \S+=\S+", text)
    assert "qwen2_5_14b-1n8g-megatron: engine.tensor_parallel=3 does not divide" in text


def test_a_recipe_beside_all_is_a_sentence() -> None:
    done = azr("plan", "--all", "recipe=tiny-1n0g-megatron")
    assert done.returncode == 2
    assert done.stderr.strip() == "azr-nemo: --all plans every recipe: leave out recipe=..., or leave out --all"


def test_a_recipe_of_the_users_own_is_planned(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("# @package _global_\nmodel:\n  path: nowhere\n  architecture: qwen2_5_coder_3b\ncluster:\n  gpus_per_node: 2\n")
    plan = make_plan(load_settings([f"recipe={recipe}"]))
    assert plan.recipe == "mine"
    assert plan.size.layout.data == 2
