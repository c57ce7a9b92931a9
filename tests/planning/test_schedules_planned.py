"""The seconds that the plan gives to each schedule, against the real driver and step on a pretended cluster."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from azr_nemo.planning.plan import make_plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.planning.step_time import BATCHES, Asked, batch_seconds, batches, generation_seconds, utilisation
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


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["sequential", "merged", "pipelined", "sequential, split", "pipelined, split"])
def test_the_plan_agrees_with_the_simulated_cluster(benchmark: ModuleType, arm: str) -> None:
    schedule, staleness = benchmark.ARMS[arm]
    settings = ["selfplay.batch_size=32", "rollout.max_propose_tokens=512", "rollout.max_solve_tokens=512", "engine.tensor_parallel=2"]
    config = load_settings([*RECIPE, *settings, *(["cluster.sampler_ranks=4"] if staleness else [])])
    config = benchmark.scheduled(config, schedule, staleness)
    plan = benchmark.planned(config, make_plan(config))
    found = benchmark.simulate(config, plan)
    assert found.seconds == pytest.approx(plan.time.total, rel=0.05)
    assert found.used <= utilisation(plan.size, plan.time) * 1.05
    assert {span.lane for span in found.spans} == {"propose", "estimate", "solve", "update", "refit"}
    assert found.ages == {staleness, staleness + 1} if schedule == "pipelined" else {staleness}


def test_beside_an_update_the_next_step_is_sampled_and_the_longer_of_both_counts() -> None:
    settings = [*RECIPE, "placement=split", "cluster.sampler_ranks=4", "engine.tensor_parallel=2"]
    turns, beside = (make_plan(load_settings([*settings, f"selfplay.staleness={staleness}"])) for staleness in (0, 1))
    assert turns.time.total == pytest.approx(turns.time.generation + turns.time.learning + turns.time.refit)
    assert beside.time.total == pytest.approx(max(turns.time.generation, turns.time.learning) + turns.time.refit)
    assert utilisation(turns.size, turns.time) < utilisation(beside.size, beside.time) < 1
    both = make_plan(load_settings([*RECIPE, "engine.tensor_parallel=2"]))
    assert utilisation(both.size, both.time) == pytest.approx(1)


def test_recorded_lengths_are_shares_of_the_longest_allowed(benchmark: ModuleType) -> None:
    for role, shares in benchmark.RECORDED.items():
        assert list(shares) == sorted(shares), role
        assert 0 < shares[0] < shares[-1] <= 1, role
