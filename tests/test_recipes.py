"""Every recipe resolves, passes the checks of a run, and says what it amounts to, without a GPU and without its weights."""

import re
from functools import cache

import pytest
from quick_part import quick_part

from azr_nemo.errors import UserError
from azr_nemo.models.shape import architectures
from azr_nemo.planning.dry_run import check_run, describe, planned_ranks
from azr_nemo.planning.plan import make_plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.compose import ROOT, recipes
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer import loop

NAME = re.compile(r"(?P<model>\w+)-(?P<nodes>\d+)n(?P<gpus>\d+)g-(?P<engine>megatron|aligner|lora)")
GPU = [name for name in recipes() if "-1n0g-" not in name]
QWEN_7B = "recipe=qwen2_5_7b-1n4g-megatron"
# The models that were published, with the GPUs of 80 GB that each was trained on.
PUBLISHED = {
    "qwen2_5_coder_3b": 2, "qwen3_4b_base": 2, "qwen2_5_7b": 4, "qwen2_5_coder_7b": 4, "llama3_1_8b": 4, "qwen2_5_14b": 8,
    "qwen2_5_coder_14b": 8,
}  # fmt: skip


@cache
def loaded(name: str) -> RunConfig:
    return load_settings([f"recipe={name}"])


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_dry_runs_and_is_what_its_name_says(name):
    config = loaded(name)
    said = NAME.fullmatch(name)
    assert said is not None
    assert (config.cluster.nodes, config.cluster.gpus_per_node) == (int(said["nodes"]), int(said["gpus"]))
    assert config.engine.name == ("aligner" if said["engine"] == "aligner" else "megatron")
    assert (config.model.lora.rank > 0) == (said["engine"] == "lora")
    assert config.rollout.name in (("nemo", "trtllm") if said["engine"] == "aligner" else ("torch", "transformers", "trtllm"))
    assert said["model"] in (config.model.architecture, config.model.path.partition(":")[2])
    lines = {line.partition(": ")[0]: line for line in describe(config)}
    ranks = max(1, int(said["nodes"]) * int(said["gpus"]))
    layout = re.search(r"(\d+) ranks?.* = tensor parallel (\d+) x pipeline parallel (\d+) x data parallel (\d+)", lines["layout"])
    assert layout is not None
    total, tensor, pipeline, data = map(int, layout.groups())
    assert total == tensor * pipeline * data == ranks
    assert {"model", "rollouts", "a step", "micro-batches", "tokens", "budget of a step, at most"} <= set(lines)


@pytest.mark.parametrize("engine", ["megatron", "aligner"])
@pytest.mark.parametrize("model", PUBLISHED)
def test_every_published_model_has_a_recipe_with_the_published_settings(model, engine):
    if (name := f"{model}-1n{PUBLISHED[model]}g-{engine}") == "qwen3_4b_base-1n2g-aligner":
        assert name not in recipes()  # NeMo 2.1 does not know Qwen3
        return
    config = loaded(name)
    rollout, selfplay = config.rollout, config.selfplay
    assert (selfplay.batch_size, len(selfplay.task_types), selfplay.train_propose, rollout.estimate_samples) == (64, 3, True, 8)
    assert (rollout.max_prompt_tokens, rollout.max_propose_tokens, rollout.max_solve_tokens) == (6144, 8096, 8096)
    assert (config.optim.lr, config.checkpoint.every, rollout.temperature) == (1e-6, 10, 1.0)
    assert selfplay.rename_entry == (model in ("llama3_1_8b", "qwen3_4b_base"))
    assert config.data.seed_factor == (1 if model == "llama3_1_8b" else 4)


@pytest.mark.parametrize("name", ["qwen2_5_coder_0_5b-1n0g-megatron", "qwen2_5_coder_0_5b-1n1g-megatron"])
def test_without_any_data_right_answers_alone_teach_and_one_that_repeats_the_output_does_not(name):
    """What docs/learning.md measured: with wrong answers pushed down, the model comes to answer every abduction task with its output."""
    config = loaded(name)
    assert (config.warmup.steps, config.data.seed_files, config.reward.echo) == (0, [], "left_out")
    assert (config.advantage.failure_weight, config.selfplay.known_answers, config.selfplay.refuse_ignored_input) == (0.0, True, True)
    assert config.optim.lr * 64 <= 5e-6 * config.selfplay.batch_size, "at twice the rate 24 steps lose what eight have taught"


@pytest.mark.parametrize("name", quick_part(name for name in GPU if not name.endswith("-aligner")))
def test_a_recipe_for_gpus_runs_with_vllm_as_it_does_with_trtllm(name):
    both = [load_settings([f"recipe={name}", f"rollout={rollout}", "rollout.memory_fraction=0.3"]) for rollout in ("trtllm", "vllm")]
    trtllm, vllm = ([line for line in describe(config) if not line.startswith("rollouts: ")] for config in both)
    assert vllm == trtllm
    plans = [make_plan(config) for config in both]
    assert (plans[1].memory, plans[1].time, plans[1].fits) == (plans[0].memory, plans[0].time, True)


@pytest.mark.parametrize("name", GPU)
def test_a_recipe_for_gpus_shards_what_it_can(name):
    config = loaded(name)
    assert config.model.architecture in architectures()
    assert config.engine.distributed_optimizer
    assert config.engine.recompute
    assert config.engine.sequence_parallel == (config.engine.tensor_parallel > 1)


def test_every_recipe_and_nothing_else_is_in_the_table():
    text = (ROOT / "recipes" / "README.md").read_text()
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == recipes()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([QWEN_7B, "engine.tensor_parallel=8"], r"tensor_parallel=8 does not divide the model's 28 attention heads and 4 kv heads: use 1, 2 or 4"),
        ([QWEN_7B, "engine.pipeline_parallel=3"], r"pipeline_parallel=3 does not divide the model's 28 layers"),
        ([QWEN_7B, "cluster.gpus_per_node=7", "rollout.tensor_parallel=1"], r"needs a multiple of 2 ranks, but the job has 7"),
        ([QWEN_7B, "rollout.max_solve_tokens=130000"], r"make 136144, more than the 131072 positions of models/Qwen2\.5-7B: lower them"),
        (["recipe=qwen2_5_coder_7b-1n4g-megatron", "rollout.max_propose_tokens=30000"], r"more than the 32768 positions"),
        ([QWEN_7B, "resume=/nowhere/step_000010"], r"/nowhere/step_000010 is not a whole checkpoint"),
        ([QWEN_7B, "engine.tensor_paralel=2"], r"engine\.tensor_paralel is not a setting: did you mean engine\.tensor_parallel\?"),
        ([QWEN_7B, "engine.tensor_parallel=1"], r"engine\.sequence_parallel=true needs engine\.tensor_parallel above 1"),
        ([QWEN_7B, "rollout.tensor_parallel=8"], r"rollout\.tensor_parallel=8 does not divide the model's 28 attention heads"),
        (["recipe=qwen2_5_14b-1n8g-megatron", "rollout.tensor_parallel=8", "cluster.gpus_per_node=4", "cluster.nodes=2"],
         r"rollout\.tensor_parallel=8 does not divide the 4 GPUs of a node"),
        ([QWEN_7B, "rollout.name=torch"], r"rollout\.tensor_parallel=2 is for engine=megatron with rollout=trtllm"),
        (["recipe=qwen2_5_7b-1n4g-aligner", "rollout=trtllm"], r"rollout=trtllm cannot serve models/Qwen2\.5-7B\.nemo: its QKV layers have biases"),
        (["recipe=qwen2_5_7b-1n4g-aligner", "model.architecture=qwen3_4b_base"], r"NeMo 2\.1 does not know Qwen3; use engine=megatron"),
        (["recipe=qwen2_5_7b-1n4g-aligner", "rollout=torch"], r"rollout=torch is not for engine=aligner"),
        ([QWEN_7B, "rollout=vllm", "rollout.endpoints=['http://a:1']"], r"rollout\.endpoints names 1 server, and the run has 2 replicas of 2 ranks"),
        (["rollout=vllm", "rollout.tensor_parallel=3"], r"rollout\.tensor_parallel=3 is for GPUs, and cluster\.gpus_per_node is 0"),
        ([QWEN_7B, "model.architecture=qwen9"], r"model\.architecture=qwen9 is unknown: there are llama3_1_8b"),
        ([QWEN_7B, "model.architecture=''"], r"model\.path=models/Qwen2\.5-7B is not a Hugging Face model directory"),
        ([QWEN_7B, "data.seed_files=[/nowhere.jsonl]"], r"data\.seed_files names /nowhere\.jsonl, which is not a file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(overrides, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence) as refused:
        describe(load_settings([*overrides, f"run_dir={tmp_path}"]))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_the_launchers_ranks_count_more_than_the_recipes_gpus(monkeypatch):
    config = load_settings([QWEN_7B])
    assert planned_ranks(config) == 4
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert planned_ranks(config) == 2
    assert "data parallel 1" in "\n".join(describe(config))


def test_a_real_run_makes_the_checks_of_the_dry_run_first(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "RunDirectory", None)  # nothing may be made before the checks
    overrides = ["recipe=tiny-1n0g-megatron", f"run_dir={tmp_path / 'run'}"]
    for wrong, sentence in [
        ("rollout.max_solve_tokens=1000", "more than the 1024 positions"),
        ("engine.tensor_parallel=2", "needs a multiple of 2 ranks"),
        (f"resume={tmp_path / 'none'}", "is not a whole checkpoint"),
    ]:
        config = load_settings([*overrides, wrong])
        for refuse in (loop.train, lambda config: check_run(config, 1)):
            with pytest.raises(UserError, match=sentence):
                refuse(config)
    assert not (tmp_path / "run").exists()


def test_the_learning_experiment_is_a_recipe_of_the_tiny_model():
    config = load_settings([f"recipe={ROOT / 'benchmarks' / 'learning_tiny.yaml'}"])
    assert config.model.path == loaded("tiny-1n0g-megatron").model.path
    assert config.optim.entropy == 0
    assert describe(config)
