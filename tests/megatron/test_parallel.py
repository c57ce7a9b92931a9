"""Two ranks against one: tensor, pipeline and data parallelism give the same log-probabilities, updates and samples."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parallel_job import LAYOUTS, PROMPTS, settings
from run_server import ranks
from safetensors.torch import load_file
from tiny_models import EchoRollout, run_config, training_batch
from torch import Tensor

import azr_nemo.rollout
from azr_nemo.file_hashes import Written
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import load_checkpoint
from azr_nemo.megatron.controller import build_engine
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.selfplay.exchange import PromptBatch
from azr_nemo.settings.schema import RunConfig

HERE = Path(__file__).parent
MakeActor = Callable[..., Actor]


JOB = HERE / "parallel_job.py"


FAMILIES = ("llama-tied", "qwen2-untied")


@pytest.fixture(scope="module")
def results(model_dir: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one job over all families and layouts: starting ranks is what costs time."""
    out = tmp_path_factory.mktemp("parallel")
    for ended in ranks(JOB, 2, "layouts", out, *(model_dir(family) for family in FAMILIES)):
        assert ended.code == 0, ended.output
    return out


@pytest.fixture(params=FAMILIES)
def job(request: pytest.FixtureRequest, results: Path) -> tuple[str, Path]:
    return request.param, results / str(FAMILIES.index(request.param))


def in_one(layout: str) -> RunConfig:
    config = settings(layout)
    config.engine = run_config().engine
    return config


@pytest.fixture
def alone(job: tuple[str, Path], layout: str, make_actor: MakeActor) -> tuple[Actor, list[dict[str, float]], Tensor]:
    """One rank with the layout's own loss."""
    actor = make_actor(job[0], in_one(layout))
    batch = training_batch()
    logprobs = actor.logprobs(batch.prompt_ids, batch.response_ids)
    return actor, [actor.update(training_batch(seed=seed)) for seed in (0, 1)], logprobs


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_learn_what_one_learns(
    layout: str, job: tuple[str, Path], alone: tuple[Actor, list[dict[str, float]], Tensor], make_actor: MakeActor
) -> None:
    family, out = job
    actor, metrics, logprobs = alone
    theirs = load_file(out / f"{layout}.safetensors")
    torch.testing.assert_close(theirs.pop("logprobs"), logprobs, rtol=0, atol=1e-5)
    ours = {name: tensor.clone() for name, tensor in export_weights(actor.model, actor.hf_config)}
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-5)
    for mine, other in zip(metrics, json.loads((out / f"{layout}.json").read_text())["metrics"], strict=True):
        assert other.keys() - {"refit_s"} == mine.keys()
        for name in mine.keys() - {"update_s"}:
            assert other[name] == pytest.approx(mine[name], abs=1e-5), name

    # A checkpoint of two ranks, optimizer included, loads into one: bit for bit, and the next steps agree.
    resumed = make_actor(family, in_one(layout))
    load_checkpoint(resumed, out / layout)
    for name, tensor in export_weights(resumed.model, resumed.hf_config):
        assert torch.equal(tensor, theirs[name]), name
    resumed.update(training_batch(seed=2))
    actor.update(training_batch(seed=2))
    expected = dict(export_weights(actor.model, actor.hf_config))
    for name, tensor in export_weights(resumed.model, resumed.hf_config):
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_samples_do_not_depend_on_the_number_of_ranks(
    job: tuple[str, Path], model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azr_nemo.rollout, "make_rollout", EchoRollout, raising=False)
    engine = build_engine(run_config(), model_dir(job[0]))
    assert engine is not None
    expected = [[list(c.response_ids) for c in group] for group in engine.generate(PromptBatch(PROMPTS, "solve"), seed=5)]
    for layout in LAYOUTS:
        found = json.loads((job[1] / f"{layout}.json").read_text())
        assert found["samples"] == expected
        assert found["seen"] == [[i, k] for i, group in enumerate(expected) for k in range(len(group))]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_hashes_of_all_ranks_are_those_of_their_files(layout: str, job: tuple[str, Path]) -> None:
    told = json.loads((job[1] / f"{layout}.json").read_text())["written"]
    saved = job[1] / layout
    assert told == {str(path.relative_to(saved)): list(Written.read(path)) for path in saved.rglob("*") if path.is_file()}
    assert {"weights/slices-00000.safetensors", "weights/slices-00001.safetensors", "weights/common.pt", "model/config.json"} < told.keys()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_are_not_finite_on_any_rank_are_known_to_rank_0(layout: str, job: tuple[str, Path]) -> None:
    sentence = json.loads((job[1] / f"{layout}.json").read_text())["diverged"]
    assert sentence.startswith("the weights are no longer finite after the update with optim.lr=0.01")


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_run_with_its_sentence(model_dir: Callable[..., Path], tmp_path: Path) -> None:
    for ended in ranks(JOB, 2, "failure", tmp_path, model_dir()):
        assert ended.code == 2
        assert "rank 1 failed in the phase `generate`: the sampler broke" in ended.output
