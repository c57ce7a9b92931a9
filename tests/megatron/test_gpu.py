"""On a CUDA device: the same log-probabilities, updates and samples as on the CPU, over nccl; TransformerEngine's layers against Megatron's.

pytest -m gpu
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import run_config, training_batch

from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.controller import MegatronEngine
from azr_nemo.megatron.huggingface import read_config
from azr_nemo.megatron.platform import Platform, choose_platform
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.selfplay.exchange import Prompt, PromptBatch
from azr_nemo.tasks.task import PromptText, Role, TaskType

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]

FAMILIES = ("llama-tied", "qwen2-untied", "qwen3")
HALF = 0.05  # log-probabilities in bfloat16, whose products have three significant digits


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Platform]]:
    """Joins a job of one on the named platform, leaving the one before; leaves it again at the end."""
    # The products of the comparison must not be rounded to TensorFloat-32.
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)

    def start(name: str) -> Platform:
        distributed.stop()
        platform = choose_platform(name)
        distributed.start(platform, 1, 1)
        return platform

    yield start
    distributed.stop()


def actor_on(platform: Platform, directory: Path, dtype: str = "float32", **engine: int) -> Actor:
    config = run_config(dtype, **engine)
    config.optim.eps = 1e-3
    return Actor(config, read_config(directory), platform, directory)


def logprobs(actor: Actor) -> torch.Tensor:
    batch = training_batch()
    return actor.logprobs(batch.prompt_ids, batch.response_ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gpu_over_nccl_learns_what_the_cpu_learns(on: Callable[[str], Platform], model_dir: Callable[..., Path], family: str) -> None:
    found = {}
    for name in ("cpu", "cuda"):
        actor = actor_on(on(name), model_dir(family))
        before = logprobs(actor)
        metrics = actor.update(training_batch())
        weights = {key: tensor.float().cpu().clone() for key, tensor in export_weights(actor.model, actor.hf_config)}
        found[name] = before, metrics, weights
    torch.testing.assert_close(found["cuda"][0], found["cpu"][0], rtol=0, atol=1e-4)
    assert found["cuda"][1]["grad_norm"] == pytest.approx(found["cpu"][1]["grad_norm"], rel=1e-3)
    for name, tensor in found["cpu"][2].items():
        torch.testing.assert_close(found["cuda"][2][name], tensor, rtol=0, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_transformer_engine_and_of_megatron_agree(
    on: Callable[[str], Platform], model_dir: Callable[..., Path], family: str, recompute: bool
) -> None:
    pytest.importorskip("transformer_engine", reason="TransformerEngine is not installed")
    platform = on("cuda")
    assert platform.transformer_engine
    theirs = actor_on(platform, model_dir(family), "bfloat16", recompute=recompute)
    ours = actor_on(replace(platform, transformer_engine=False), model_dir(family), "bfloat16", recompute=recompute)
    torch.testing.assert_close(logprobs(theirs), logprobs(ours), rtol=0, atol=HALF)
    first, second = (actor.update(training_batch()) for actor in (theirs, ours))
    assert first["loss"] == pytest.approx(second["loss"], abs=HALF)
    assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=0.05)


def test_the_distributed_optimizer_trains_and_comes_back_from_a_checkpoint(
    on: Callable[[str], Platform], model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("transformer_engine", reason="TransformerEngine is not installed")
    on("cuda")
    config = run_config("bfloat16", distributed_optimizer=True)
    config.platform = "cuda"
    engine = MegatronEngine(config, model_dir())
    engine.update(training_batch(seed=0))
    engine.save(tmp_path)
    expected = engine.update(training_batch(seed=1))["loss"]
    engine.load(tmp_path)
    assert engine.update(training_batch(seed=1))["loss"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_rollout_engine_on_a_gpu_samples_from_the_trainers_policy(
    on: Callable[[str], Platform], model_dir: Callable[..., Path], dtype: str
) -> None:
    on("cuda")
    config = run_config(dtype)
    config.platform = "cuda"
    engine = MegatronEngine(config, model_dir("qwen2-untied"))
    prompts = [Prompt(PromptText(text), Role.SOLVE, TaskType.DEDUCTION, samples=4, max_new_tokens=12) for text in ("abc", "de")]
    rows = [completion for group in engine.generate(PromptBatch(prompts, "solve"), seed=3) for completion in group]
    batch = training_batch(len(rows))
    shape = (len(rows), max(len(row.response_ids) for row in rows))
    mask, drawn = torch.zeros(shape), torch.zeros(shape)
    for place, row in enumerate(rows):
        mask[place, : len(row.response_ids)] = 1
        drawn[place, : len(row.response_ids)] = torch.tensor(row.logprobs)
    ids = [row.prompt_ids for row in rows], [row.response_ids for row in rows]
    metrics = engine.update(replace(batch, prompt_ids=ids[0], response_ids=ids[1], mask=mask, rollout_logprobs=drawn, advantages=mask))
    assert abs(metrics["rollout_kl"]) < (1e-4 if dtype == "float32" else HALF)
