"""Task types, rewards, estimators, losses and rollout engines come from outside the package: the worked examples of docs/extending.md run as they are."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rollout_models import CONFIGS, EOS, random_model, request
from run_server import command
from tiny_run import finish, start

from azr_nemo.algorithms.estimators import ESTIMATORS, Rewarded
from azr_nemo.algorithms.losses import LOSSES, Bounds, Moved
from azr_nemo.errors import UserError
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.rollout import ROLLOUTS, make_rollout
from azr_nemo.settings.compose import as_yaml, from_yaml
from azr_nemo.settings.extensions import extend
from azr_nemo.settings.machine import RolloutConfig
from azr_nemo.tasks import KINDS, triplets
from azr_nemo.tasks.task import PromptOptions, Refusal, Task, TaskType

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
ADDED = ("task_type", "estimator", "loss", "rollout_engine")


@pytest.fixture
def added():
    """added(name): the example is imported, and what it added is gone after the test."""
    before = set(sys.modules)
    kept = [(table, dict(table)) for table in (KINDS, ESTIMATORS, LOSSES, ROLLOUTS, TaskType.named)]
    yield lambda name: extend([str(EXAMPLES / f"{name}.py")])
    for table, content in kept:
        for name in set(table) - set(content):
            del table[name]
    for name in set(sys.modules) - before:
        if name.startswith("azr_nemo_extension_"):
            del sys.modules[name]


def test_an_example_is_twenty_to_forty_lines_and_changes_nothing_in_the_package():
    for name in (*ADDED, "reward"):
        lines = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert 20 <= len(lines) <= 45, name


def test_the_page_shows_the_examples_as_they_are():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for name in (*ADDED, "reward"):
        assert f"../examples/{name}.py" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_takes_all_of_them_and_goes_on_with_them(tmp_path):
    files = ",".join(str(EXAMPLES / f"{name}.py") for name in ADDED)
    words = [
        f"extensions=[{files}]", "selfplay.task_types=[deduction,output_type]", "advantage=median", "optim.loss=reinforce", "rollout=plain",
        "selfplay.solve_samples=2", "reward.intrinsic.arguments.target=reward.many_arguments", "reward.intrinsic.arguments.coef=0.1", "eval.items=0",
    ]  # fmt: skip
    for steps in (1, 2):
        finish(start(tmp_path / "run", f"selfplay.steps={steps}", *words, PYTHONPATH=str(EXAMPLES)))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "solve/output_type/accuracy" in line] == [1, 2]
    assert "output_type" in command("rollouts", str(tmp_path / "run"), "--limit", "100", timeout=120)


def test_a_task_type_reads_back_what_it_states(added):
    added("task_type")
    kind = KINDS[TaskType("output_type")]
    task = Task(kind.type, "def f(x):\n    return [x]", ("1",), ("[1]",))
    assert kind.type in triplets()
    assert list(TaskType)[-1] is kind.type
    prompt = kind.solve_prompt(task, PromptOptions(style="completion"))
    answer = kind.parse_answer(prompt.prefill + kind.answer_text(kind.known_answer(task), PromptOptions()), PromptOptions())
    assert kind.verification(task, answer).score == 1
    assert kind.verification(task, "tuple").score == 0
    assert isinstance(kind.parse_answer("list", PromptOptions()), Refusal)


def test_an_estimator_and_a_loss_are_taken_by_their_names(added):
    with pytest.raises(UserError, match=r"advantage\.name=median"):
        load_settings(["advantage.name=median"])
    added("estimator")
    added("loss")
    config = load_settings(["advantage.name=median", "optim.loss=reinforce", "selfplay.solve_samples=2"])
    assert (config.advantage.name, config.optim.loss) == ("median", "reinforce")
    ids = torch.zeros(3, dtype=torch.long)
    rows = Rewarded(torch.tensor([0.0, 1.0, 1.0]), torch.ones(3, 2), ids, ids, torch.zeros(3, dtype=torch.bool))
    assert ESTIMATORS["median"].compare(rows, "token", 0.0, {})[0].tolist() == [[-1, -1], [0, 0], [0, 0]]
    half = torch.tensor([0.5]).log()
    loss, told = LOSSES["reinforce"](Moved(half, half, torch.tensor([2.0]), torch.zeros(1)), Bounds(0.2, 0.2))
    assert loss.item() == pytest.approx(2 * 0.6931, abs=1e-3)
    assert told["ratio"].item() == 1


@pytest.mark.parametrize("name", ["llama", "qwen2-tied"])
def test_a_rollout_engine_draws_what_the_others_draw(added, name):
    added("rollout_engine")
    model = random_model(CONFIGS[name])
    requests = [request(5, samples=2, tokens=6), request(9, samples=1, tokens=4)]
    drawn = []
    for engine in ("plain", "torch"):
        made = make_rollout(RolloutConfig(name=engine), model.config, torch.float32, list(EOS), torch.device("cpu"))
        made.refit(model.named_parameters(), 3)
        drawn.append([[(sample.token_ids, sample.weight_version) for sample in group] for group in made.generate(requests)])
    assert drawn[0] == drawn[1]


def test_a_runs_configuration_brings_its_extensions_along(added, tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    config = load_settings(["extensions=[loss.py]", "optim.loss=reinforce"])
    assert config.extensions == [str(EXAMPLES / "loss.py")]
    (tmp_path / "config.yaml").write_text(as_yaml(config), encoding="utf-8")
    del LOSSES["reinforce"]
    for name in [name for name in sys.modules if name.startswith("azr_nemo_extension_loss")]:
        del sys.modules[name]
    monkeypatch.chdir(tmp_path)
    assert from_yaml(tmp_path / "config.yaml") == config
    assert "reinforce" in LOSSES


def test_a_recipe_of_ones_own_may_name_them(added, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"extensions: ['{EXAMPLES / 'loss.py'}']\noptim:\n  loss: reinforce\n", encoding="utf-8")
    assert load_settings([f"recipe={recipe}"]).optim.loss == "reinforce"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("no_such_module", None, "ModuleNotFoundError"),
        ("gone.py", None, "FileNotFoundError"),
        ("broken.py", "def f(:", "SyntaxError"),
        ("raises.py", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(tmp_path, monkeypatch, name, text, why):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"extensions={re.escape(name)} cannot be imported \({why}: .*\): give a module of this environment"
    ):
        load_settings([f"extensions=[{name}]"])


@given(st.text())
def test_only_a_name_can_be_a_task_type(text):
    if text in TaskType.named:
        assert TaskType(text) is TaskType.named[text]
    else:
        with pytest.raises(ValueError, match="is no task type: there are deduction, abduction, induction"):
            TaskType(text)
    if not text.isidentifier():
        with pytest.raises(ValueError, match="cannot name a task type"):
            TaskType.new(text)
