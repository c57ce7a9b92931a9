"""Run in the default engine's environment: makes the tiny model for NeMo, and takes the step with canned completions through engine=megatron.

default_engine.py OUT LESSONS     OUT/model (Hugging Face), OUT/nemo (the same), and of the step OUT/default.json, default.safetensors,
                                  default_weights.safetensors
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from canned import CannedEngine, fill, settings
from safetensors.torch import save_file
from sample_tasks import FakeExecutor
from transformers import AutoTokenizer

from azr_nemo.conversion.convert import convert
from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.huggingface import read_config, save_hf
from azr_nemo.megatron.model import bare
from azr_nemo.megatron.platform import choose_platform
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.models.tiny import tiny
from azr_nemo.observe.console import Console
from azr_nemo.observe.timing import PhaseClock
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Example, TrainingBatch
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.driver import Driver
from azr_nemo.trainer.session import make_session

LEARNING_RATE = 0.5  # of the one plain gradient step that both engines take


class GradientStep:
    """p -= lr * gradient: nothing of an optimizer comes between the two engines' gradients."""

    def __init__(self, model: torch.nn.Module):
        self.parameters = list(model.parameters())
        self.param_groups: list[dict[str, Any]] = [{"lr": LEARNING_RATE}]

    def zero_grad(self) -> None:
        """As Megatron's optimizers do; what counts are the gradients in its own buffer, which the actor clears."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> tuple[bool, Any, None]:
        gradients = [parameter.main_grad for parameter in self.parameters]
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.sub_(LEARNING_RATE * gradient)
        return True, torch.stack([gradient.pow(2).sum() for gradient in gradients]).sum().sqrt(), None


def main(out: Path, lessons: int) -> None:
    torch.set_num_threads(1)
    random = tiny(out, 1)
    config = settings(str(random), str(out / "default"))
    platform = choose_platform("cpu")
    distributed.start(platform, 1, 1)
    actor = Actor(config, read_config(random), platform, random)
    batch = canned_batch(config, AutoTokenizer.from_pretrained(random), out / "default.sqlite")
    loss = teach(actor, batch, lessons)
    save_hf(export_weights(actor.model, actor.hf_config), read_config(random), random, out / "model")
    convert(out / "model", out / "nemo", "nemo", console=Console("plain", sys.stderr))
    logprobs = actor.logprobs(batch.prompt_ids, batch.response_ids)
    actor.supervised = False
    actor.optimizer = GradientStep(bare(actor.model))  # type: ignore[assignment]
    actor.scheduler = SimpleNamespace(num_steps=0, step=lambda increment: None)  # type: ignore[assignment]
    metrics = actor.update(batch)
    weights = {name: tensor.clone().contiguous() for name, tensor in export_weights(actor.model, actor.hf_config)}
    save_file(weights, out / "default_weights.safetensors")
    save_file({"logprobs": logprobs.contiguous(), "advantages": batch.advantages, "mask": batch.mask}, out / "default.safetensors")
    rows = {
        "prompts": batch.prompt_ids,
        "responses": batch.response_ids,
        "rewards": batch.rewards.tolist(),
        "groups": batch.groups.tolist(),
    }
    (out / "default.json").write_text(json.dumps({"rows": rows, "metrics": metrics, "lesson_loss": loss}))


def canned_batch(config: RunConfig, tokenizer: Any, path: Path) -> TrainingBatch:
    """Step 1 with canned completions."""
    engine = CannedEngine(tokenizer)
    with TaskBuffer(path, 100) as buffer, FakeExecutor() as executor:
        fill(buffer)
        session = make_session(config, engine, executor, buffer)  # type: ignore[arg-type]
        driver = Driver(engine, PhaseClock(), Console("plain", sys.stderr), config.seed)  # type: ignore[arg-type]
        return driver.drive(session.selfplay.step(1), "step/1").batch


def teach(actor: Actor, batch: TrainingBatch, lessons: int) -> float:
    """Has the random model learn by heart what earned more than the worst: random weights would earn the same for every row, so no signal."""
    rows = zip(batch.prompt_ids, batch.response_ids, batch.rewards.tolist(), strict=True)
    examples = [Example(tuple(prompt), tuple(response)) for prompt, response, reward in rows if reward > -0.9]
    loss = 0.0
    for _ in range(lessons):
        loss = actor.supervise(examples, lr=3e-3)["loss"]
    return loss


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
