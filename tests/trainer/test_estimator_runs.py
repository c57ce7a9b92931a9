"""Whole runs of two steps: each advantage estimator, each loss, every intrinsic reward, and a reward of the user's own, on the command line.

The model has learnt four programs nearly by heart, so that some of what it proposes is a task that it solves now and then.
"""

import json

import pytest
from run_server import command
from self_play_job import SETTINGS, memorise

from azr_nemo.algorithms.estimators import ESTIMATORS
from azr_nemo.algorithms.losses import LOSSES
from azr_nemo.rewards.intrinsic.registry import BUILT_IN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MINE = '''
def many_arguments(task, references, history):
    """As in docs/rewards.md."""
    return min(task.inputs[0].count(",") / 3, 1.0)


def short(task, references, history):
    assert isinstance(references, list)
    assert sum(history.inputs(task.type).values()) > 0, "the seeds are in the buffer"
    return 1 / len(task.program)
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(name, *overrides): the metrics of the steps of a run that ended well."""
    out = tmp_path_factory.mktemp("runs")
    memorise(out, steps=160)
    (out / "modules").mkdir()
    (out / "modules" / "my_package.py").write_text(MINE)

    def start(name, *overrides):
        own = [f"model.path={out / 'model'}", f"run_dir={out / name}", "selfplay.steps=2", "checkpoint.every=2"]
        environment = {"PYTHONPATH": str(out / "modules"), "AZR_NEMO_CACHE": str(out / "cache")}
        command("train", *SETTINGS, *own, *overrides, timeout=600, **environment)
        lines = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if line["step"]]

    return start


SAMPLES = ["selfplay.propose_samples=2", "selfplay.solve_samples=2"]


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_estimator_trains(run, name):
    steps = run(name, f"advantage={name}", *SAMPLES)
    assert len(steps) == 2
    assert all(step["train/grad_norm"] > 0 and step["train/rows"] == 24 for step in steps)
    assert any(abs(step["train/pg_loss"]) > 0 for step in steps), "rewards that differ must become advantages"


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_trains_in_mini_batches(run, loss):
    narrow = ["optim.clip_low=1e-3", "optim.clip_high=1e-3", "optim.aggregation=sequence_mean", "optim.importance_sampling=on"]
    steps = run(loss, f"optim.loss={loss}", "optim.mini_batches=3", *narrow)
    assert len(steps) == 2
    assert all(step["train/grad_norm"] > 0 for step in steps)
    assert any(0 < step["train/clip_fraction"] < 1 for step in steps)
    assert all(step["train/is_weight_mean"] == pytest.approx(1, abs=1e-3) for step in steps), (
        "both engines have the same weights in float32"
    )


# Enough proposals and estimates, at a temperature where most hold and some go wrong.
LEARNABLE = ["selfplay.batch_size=16", "rollout.estimate_samples=8", "rollout.temperature=0.5"]


def test_all_intrinsic_rewards_can_be_on(run):
    steps = run("intrinsic", *LEARNABLE, *(f"reward.intrinsic.{name}.coef=0.1" for name in BUILT_IN))
    seen = {name.split("/")[2] for step in steps for name in step if name.startswith("intrinsic/")}
    assert {"complexity", "halstead"} <= seen <= set(BUILT_IN)


def test_a_reward_of_the_users_own_comes_from_outside_the_package(run):
    own = [f"reward.intrinsic.{name}.target=my_package.{target}" for name, target in (("arguments", "many_arguments"), ("short", "short"))]
    steps = run("own", *LEARNABLE, *own, "reward.intrinsic.arguments.coef=0.1", "reward.intrinsic.short.coef=0.1")
    values = [value for step in steps for name, value in step.items() if name.startswith("intrinsic/") and name.endswith("/short")]
    assert values
    assert all(0 < value <= 0.1 for value in values)
