"""The seconds that the plan gives to each schedule, against the real driver and step on a pretended cluster."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from azr_nemo.planning.plan import make_plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.planning.step_time import BATCHES, Asked, batch_seconds, batches, generation_seconds
from azr_nemo.selfplay.schedules import SCHEDULES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPE = ["recipe=qwen2_5_14b-1n8g-megatron", "selfplay.solve_from=previous", "selfplay.prompt_style=completion"]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("schedules_benchmark", BENCHMARKS / "schedules.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_schedule_is_planned() -> None:
    assert set(BATCHES) == set(SCHEDULES)
    for schedule, phases in BATCHES.items():
        assert sorted(phase for batch in phases for phase in batch) == ["estimate", "propose", "solve"], schedule


def test_a_batch_of_several_phases_has_one_tail() -> None:
    plan = make_plan(load_settings(RECIPE))
    size, hardware = plan.size, plan.hardware
    few = [Asked(8, 1, 1000, 10), Asked(8, 1, 800, 10)]
    together = batch_seconds(size, hardware, *few)
    alone = [generation_seconds(size, hardware, asked.prompts, asked.samples, asked.longest, asked.mean) for asked in few]
    assert max(alone) < together < 0.7 * sum(alone)
    assert batch_seconds(size, hardware, few[0]) == alone[0]
    assert list(batches(replace(size, schedule="pipelined"))) == ["estimate + solve + propose"]


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_the_plan_agrees_with_the_simulated_cluster(benchmark: ModuleType, schedule: str) -> None:
    config = load_settings([*RECIPE, "selfplay.batch_size=32", "rollout.max_propose_tokens=512", "rollout.max_solve_tokens=512"])
    plan = benchmark.planned(config, make_plan(config), schedule)
    found = benchmark.simulate(config, plan)
    assert found.seconds == pytest.approx(plan.time.total, rel=0.1)
    lanes = {span.lane for span in found.spans}
    assert lanes == {"propose", "estimate", "solve", "update", "refit"}
