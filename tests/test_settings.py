"""Recipes resolve, and every wrong setting is one sentence that names it."""

import pytest
from quick_part import quick_part

from azr_nemo.algorithms.estimators import ESTIMATORS
from azr_nemo.errors import UserError
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.compose import as_yaml, from_yaml, recipes
from azr_nemo.settings.schema import ExecutorConfig, SelfPlayConfig
from azr_nemo.tasks.program import IMPORTS


@pytest.mark.parametrize("name", quick_part(recipes()))
def test_every_recipe_resolves_and_survives_yaml(name, tmp_path):
    config = load_settings([f"recipe={name}"])
    assert config.recipe == name
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    assert from_yaml(tmp_path / "config.yaml") == config


def test_overrides_win_over_the_recipe():
    config = load_settings(["recipe=tiny-1n0g-megatron", "optim.lr=1e-5", "rollout=transformers"])
    assert (config.optim.lr, config.rollout.name) == (1e-5, "transformers")


def test_no_recipe_at_all_is_the_schemas_defaults():
    assert load_settings([], default_recipe=False).executor == ExecutorConfig()
    assert load_settings(["recipe=tiny-1n0g-megatron"], default_recipe=False) == load_settings(["recipe=tiny-1n0g-megatron"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["executor.endpoints=[]"], r"executor\.endpoints is empty: give the servers' URLs"),
        (["executor.endpoints=['localhost:8080']"], "'localhost:8080' is not a server's URL"),
        (["executor.endpoints=['ftp://a']"], "'ftp://a' is not a server's URL"),
        (["executor.modules=[numpy]"], r"executor\.modules is for executor=local"),
        (["executor.output_chars=50000"], r"executor\.output_chars=50000 is more than a Sandbox-Fusion server passes on"),
    ],
)
def test_a_remote_executor_is_checked_before_it_is_asked(overrides, sentence):
    assert load_settings(["executor=sandbox_fusion"]).executor.endpoints == ["http://localhost:8080"]
    with pytest.raises(UserError, match=sentence):
        load_settings(["executor=sandbox_fusion", *overrides])


@pytest.mark.parametrize("cut", ["rollout.top_p=0.9", "rollout.top_k=20", "rollout.min_p=0.05"])
def test_drawing_from_a_part_of_the_distribution_is_refused_where_its_probability_would_weigh(cut):
    load_settings([cut, "optim.importance_sampling=metrics"])
    with pytest.raises(UserError, match=r"optim\.importance_sampling=on weighs by the probability"):
        load_settings([cut, "optim.importance_sampling='on'"])


def test_an_endpoint_is_a_url():
    with pytest.raises(UserError, match=r"rollout\.endpoints: 'gpu7:8000' is not a server's URL"):
        load_settings(["rollout=vllm", "rollout.endpoints=['gpu7:8000']"])


def test_a_recipe_of_ones_own_is_a_file(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("defaults:\n  - override /model: tiny\nselfplay:\n  steps: 7\n")
    config = load_settings([f"recipe={own}"])
    assert (config.recipe, config.selfplay.steps, config.model.path) == ("mine", 7, "scratch:tiny")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("recipe=tiny", "recipe=tiny is unknown: did you mean tiny-1n0g-megatron"),
        ("recipe=nowhere.yaml", "cannot be read"),
        ("optim.lrr=1", r"optim.lrr is not a setting: did you mean optim.lr\?"),
        ("foo=1", "foo is not a setting"),
        ("optim.lr=fast", "optim.lr=fast has a value of the wrong type"),
        ("rollout=tpu", "rollout=tpu is unknown: there are nemo, torch, transformers, trtllm, vllm"),
        ("rollout.top_p=1.5", r"rollout\.top_p=1\.5 must be above 0 and at most 1"),
        ("rollout.top_p=0", r"rollout\.top_p=0\.0 must be above 0"),
        ("rollout.min_p=-0.1", r"rollout\.min_p=-0\.1 is too small"),
        ("rollout.endpoints=['http://a:1']", r"rollout\.endpoints is for rollout=vllm, not for rollout=torch"),
        (
            "rollout.update_in_flight=true",
            r"set rollout=vllm, placement=split and selfplay\.staleness=1 or more \(they are torch, colocated and 0\)",
        ),
        ("rollout.vllm.port=70000", r"rollout\.vllm\.port=70000 must be at least 0 and at most 65,535"),
        ("rollout.vllm.transfer=rdma", r"rollout\.vllm\.transfer=rdma is unknown: choose one of auto, shm, ipc, nccl"),
        ("rollout.name=tpu", "rollout.name=tpu is unknown: choose one of nemo, torch, transformers, trtllm, vllm"),
        ("lr", "write key=value"),
        ("executor=docker", "executor=docker is unknown: there are local, sandbox_fusion"),
        ("executor.patience_s=0", "executor.patience_s=0.0 must be above 0"),
        ("selfplay.batch_size=1", "selfplay.batch_size=1 is too small"),
        ("logging.rollouts=8", "logging.rollouts=8 is no share: give a number from 0 .* to 1"),
        ("logging.rollouts=-0.5", "logging.rollouts=-0.5 is no share"),
        ("rollout.temperature=0", "rollout.temperature=0.0 must be above 0"),
        ("selfplay.task_types=[guess]", "choose from deduction, abduction, induction"),
        ("selfplay.solve_from=half_new", "selfplay.solve_from=half_new is unknown: choose one of current, previous, recent"),
        ("selfplay.prompt_style=fences", "selfplay.prompt_style=fences is unknown: choose one of r1, completion, code, chat"),
        ("selfplay.solve_window=0", "selfplay.solve_window=0 is too small: it must be at least 1"),
        ("selfplay.reference_sampling=step", "selfplay.reference_sampling=step is unknown: choose one of uniform, recent, long"),
        ("optim.dual_clip=0.5", "must be above 1"),
        ("optim.loss=reinforce", "optim.loss=reinforce is unknown: choose one of ppo, gspo, cispo"),
        ("optim.aggregation=token", "optim.aggregation=token is unknown: choose one of token_mean, sequence_mean"),
        ("optim.mini_batches=0", "optim.mini_batches=0 is too small"),
        ("optim.mini_batches=7", "optim.mini_batches=7 does not divide the 408 rows of a step"),
        ("optim.importance_sampling=true", 'choose one of off, metrics, on; in YAML "on" and "off" need quotes'),
        ("optim.importance_cap=0", "optim.importance_cap=0.0 must be above 0"),
        ("optim.clip_low=1.5", "optim.clip_low=1.5 must be above 0 and at most 1"),
        ("optim.clip_high=0", "optim.clip_high=0.0 must be above 0"),
        ("selfplay.buffer_capacity=3", "cannot hold the seeds"),
        ("model.path=''", "model.path is empty"),
    ],
)
def test_a_wrong_setting_is_one_sentence(override, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        load_settings([override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["logging.samples_every=-1"], r"logging\.samples_every=-1 is too small: it must be at least 0"),
        (["logging.alarms.window=0"], r"logging\.alarms\.window=0 is too small: it must be at least 1"),
        (["logging.alarms.duplicates=1"], r"logging\.alarms\.duplicates=1\.0 is a share: it must be below 1, or 0 for off"),
        (["logging.alarms.entropy_fall=-0.1"], r"logging\.alarms\.entropy_fall=-0\.1 is too small"),
        (["logging.wandb_run_id=abc"], r"logging\.wandb_run_id is for Weights & Biases, which is off: set logging\.wandb=true"),
        (["logging.wandb_offline=true"], r"logging\.wandb_offline is for Weights & Biases, which is off"),
        (["logging.wandb=true", "logging.wandb_run_id=a/b"], r"logging\.wandb_run_id=a/b is not an id"),
        (["logging.wandb=true", "logging.wandb_project=''"], r"logging\.wandb_project is empty: name the project"),
    ],
)
def test_what_is_logged_is_checked_before_anything_runs(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        load_settings(overrides)
    load_settings(["logging.wandb=true", "logging.wandb_run_id=abc-1_2", "logging.wandb_offline=true", "logging.alarms.duplicates=0"])


def test_the_default_imports_are_written_once_in_effect():
    assert tuple(SelfPlayConfig().imports) == IMPORTS


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["advantage=grpo"], "selfplay.propose_samples to 2"),
        (["advantage=rloo", "selfplay.propose_samples=2", "selfplay.solve_samples=1"], "selfplay.solve_samples to 2"),
        (["advantage=hierarchical_grpo", "selfplay.solve_samples=1"], "selfplay.solve_samples to 2"),
        (["selfplay.solve_samples=3"], "selfplay.solve_samples=3 must divide selfplay.batch_size"),
        (["selfplay.proposals=9", "selfplay.propose_samples=2"], "selfplay.propose_samples=2 must divide selfplay.proposals=9"),
        (["advantage=role_baseline", "advantage.decay=1"], "advantage.decay"),
    ],
)
def test_an_estimator_that_has_nothing_to_compare_is_refused(overrides, named):
    with pytest.raises(UserError, match=named):
        load_settings(overrides)


@pytest.mark.parametrize("loss", ["gspo", "cispo"])
def test_the_dual_clip_is_ppos(loss):
    with pytest.raises(UserError, match=f"set it to 0 with optim.loss={loss}"):
        load_settings([f"optim.loss={loss}", "optim.dual_clip=3"])


def test_mini_batches_must_divide_the_rows_that_a_step_has():
    rows = ["recipe=tiny-1n0g-megatron", "selfplay.batch_size=6", "selfplay.task_types=[deduction,abduction]", "data.seed_factor=1"]
    assert load_settings([*rows, "optim.mini_batches=8"]).optim.mini_batches == 8
    with pytest.raises(UserError, match=r"optim\.mini_batches=8 does not divide the 12 rows"):
        load_settings([*rows, "optim.mini_batches=8", "selfplay.train_propose=false"])


@pytest.mark.parametrize("value", ["off", "on", "metrics"])
def test_importance_sampling_is_a_word_in_yaml_and_on_the_command_line(value, tmp_path):
    config = load_settings([f"optim.importance_sampling={value}"])
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    assert from_yaml(tmp_path / "config.yaml").optim.importance_sampling == config.optim.importance_sampling == value
    (tmp_path / "own.yaml").write_text(f'# @package _global_\noptim:\n  importance_sampling: "{value}"\n')
    assert load_settings([f"recipe={tmp_path / 'own.yaml'}"]).optim.importance_sampling == value


def test_every_estimator_has_a_group_file():
    for name in ESTIMATORS:
        config = load_settings([f"advantage={name}", "selfplay.propose_samples=2", "selfplay.solve_samples=2"])
        assert config.advantage.name == name


MINE = ["reward.intrinsic.mine.coef=0.1"]


def test_a_reward_of_ones_own_is_given_on_the_command_line_or_in_a_recipe(tmp_path):
    config = load_settings([*MINE, "reward.intrinsic.mine.target=math.dist", "reward.intrinsic.halstead.coef=0.2"])
    assert config.reward.intrinsic["mine"].target == "math.dist"
    assert config.reward.intrinsic["halstead"].coef == 0.2
    assert config.reward.intrinsic["complexity"].coef == 0
    recipe = tmp_path / "own.yaml"
    recipe.write_text("# @package _global_\nreward:\n  intrinsic:\n    mine: {target: math.dist, coef: 0.2}\n")
    assert load_settings([f"recipe={recipe}", *MINE]).reward.intrinsic["mine"].coef == 0.1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("reward.intrinsic.mine.max=0.1", "reward.intrinsic.mine is not one of complexity"),
        ("reward.intrinsic.mine.target=math.nothing", "math.nothing cannot be imported"),
        ("reward.intrinsic.mine.target=math.pi", "math.pi is no function"),
        ("reward.intrinsic.mine.target=dist", "give package.module.function"),
        ("reward.intrinsic.mine.cof=1", "reward.intrinsic.mine.cof is not a setting"),
        ("reward.intrinsic.mine.max=much", "reward.intrinsic.mine.max=much has a value of the wrong type"),
        ("reward.intrinsic_combine=average", "choose one of sum, multiply"),
    ],
)
def test_a_wrong_intrinsic_reward_is_one_sentence(override, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        load_settings([*MINE, override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model.lora.rank=8"], r"model\.lora\.rank=8 and warmup\.steps=40: a warm start teaches all weights"),
        (["model.lora.path=/adapters"], r"model\.lora\.path=/adapters needs model\.lora\.rank"),
        (["model.lora.rank=8", "model.lora.targets=[]"], r"model\.lora\.targets=\[\] leaves nothing to learn"),
        (["model.lora.rank=8", "model.lora.targets=[q]"], r"model\.lora\.targets"),
        (["recipe=qwen2_5_7b-1n4g-aligner", "model.lora.rank=8"], r"model\.lora\.rank=8 is for engine=megatron"),
    ],
)
def test_adapters_that_could_not_learn_are_refused(words, sentence):
    with pytest.raises(UserError, match=sentence):
        load_settings(words)
