"""Every recipe for GPUs on a pretended one, first and last pipeline stage: it builds, learns, exports its weights and is saved, on the right device, in
the bytes that are planned, and without waiting for the device more often than it must.

The quick part has two layers a stage, at full width; AZR_WHOLE_RECIPES=1 takes all layers, and minutes.
"""

import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import process_trees
import pytest
from omegaconf import OmegaConf

from azr_nemo.planning.plan import make_plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.compose import ROOT, recipes
from azr_nemo.settings.schema import RunConfig

JOB = Path(__file__).with_name("pretended_rank.py")
WHOLE = bool(os.environ.get("AZR_WHOLE_RECIPES"))
NAMES = [name for name in recipes() if name.endswith(("-megatron", "-lora")) and "-1n0g-" not in name]
TIMEOUT_S = 4 * 3600 if WHOLE else 1800
# Of a micro-batch, what the host waits for: nothing that is the model's own. Between stages Megatron asks how long the next tensor is.
READS = {"pipeline shapes": 2}
READS_OF_A_STEP = 8  # the gradient's norm, the token count, statistics, and what the weights have grown to
CLOSE = 0.03  # of the plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(TIMEOUT_S),
    pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "c++")), reason="no C++ compiler, which the pretended device is built with"),
]


@cache
def settings(name: str) -> RunConfig:
    return load_settings([f"recipe={name}"])


def stages(name: str) -> list[int]:
    """The first and the last, by the recipe's file alone: whoever collects tests would wait for all recipes to be composed."""
    own = OmegaConf.load(ROOT / "recipes" / f"{name}.yaml")
    return sorted({0, OmegaConf.select(own, "engine.pipeline_parallel", default=1) - 1})


PLACES = [f"{name}:{stage}" for name in NAMES for stage in stages(name)]


@pytest.fixture(scope="module")
def all_found() -> dict[str, dict[str, Any]]:
    """Every place's line: one process that imports everything and forks."""
    words = [word for place in PLACES for word in ("--", place)]
    command = [sys.executable, "-W", "ignore", JOB, "0" if WHOLE else "2", *words]
    done = process_trees.run(command, timeout=TIMEOUT_S - 60, env={**os.environ, "PYTHONPATH": str(JOB.parent)})
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(PLACES), done.stderr[-4000:]
    return {f"{line['recipe']}:{line['stage']}": line for line in lines}


@pytest.fixture(params=PLACES)
def found(request: pytest.FixtureRequest, all_found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    line = all_found[request.param]
    assert "error" not in line, line["error"]
    return line


def test_it_learns_within_the_bytes_that_are_planned_and_they_fit_the_card(found: dict[str, Any]) -> None:
    if settings(found["recipe"]).model.lora.rank:
        pytest.skip("adapters learn in layers with torch's attention, whose flash kernel a pretended device has not: all scores are kept")
    planned, steady = found["planned"], found["updates"][-1]
    state = planned["weights"] + planned["gradients"] + planned["optimizer"]
    assert steady["peak"] == pytest.approx(state + planned["step"], rel=CLOSE)
    # As much with the sampler's weights and cache, which the plan counts as if they stayed.
    assert steady["peak"] + planned["replica"] + planned["cache"] <= planned["capacity"]


def test_gradients_have_no_memory_between_updates(found: dict[str, Any]) -> None:
    planned = found["planned"]
    assert planned["offloaded"] == planned["gradients"]
    # What else is left are the dummies of weights' gradients, one of each shape: of one of the two layers, half as wide.
    assert 0 <= found["updates"][-1]["left"] - planned["weights"] - planned["optimizer"] < 0.25 * planned["gradients"]


def test_the_host_waits_for_the_device_a_few_times_a_step_and_not_in_the_layers(found: dict[str, Any]) -> None:
    few, many = found["updates"]
    more = many["micro_batches"] - few["micro_batches"]
    assert more > 0
    each = {kind: (count - few["reads"].get(kind, 0)) / more for kind, count in many["reads"].items()}
    assert all(count <= READS.get(kind, 0) for kind, count in each.items()), each
    assert sum(count for kind, count in few["reads"].items() if kind not in READS) <= READS_OF_A_STEP, few["reads"]


def test_only_this_ranks_part_of_the_weights_is_read(found: dict[str, Any]) -> None:
    assert found["weights_read"] <= found["weights"]
    assert found["weights_read"] == pytest.approx(found["weights"], rel=0.01)  # but for a vocabulary's padding


def test_a_refit_sends_each_byte_of_a_slice_once(found: dict[str, Any]) -> None:
    """Over the pipeline each rank its slices: as many bytes as a tensor-parallel rank has of the whole model."""
    engine = settings(found["recipe"]).engine
    sent = found["refit"]["sent"]
    if engine.pipeline_parallel == 1:
        assert "broadcast_" not in sent
    else:
        assert sent["broadcast_"] == pytest.approx(found["planned"]["whole"] / engine.tensor_parallel, rel=0.01)


def test_a_snapshot_takes_nothing_on_the_device_and_one_copy_on_the_host(found: dict[str, Any]) -> None:
    assert found["snapshot"]["peak"] < 2**20
    assert found["snapshot"]["host"] <= found["planned"]["snapshot"]


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_recipe_fits_by_its_plan(name: str) -> None:
    assert stages(name)[-1] == settings(name).engine.pipeline_parallel - 1
    assert make_plan(settings(name)).fits
