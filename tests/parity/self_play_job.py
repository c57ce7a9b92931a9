"""Whole self-play runs, one after the other, each in the layout that its name says: `self_play_job.py OUT tp2 pp2 dp2`.

Under torchrun every rank runs this; alone it runs in one process. Each run leaves, beside what a run always leaves, OUT/<layout>/
learnt.safetensors: the log-probabilities of every update's rows, as the trainer sees them before the update, and the weights at the end.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.controller import MegatronEngine, build_engine
from azr_nemo.megatron.huggingface import read_config, save_hf
from azr_nemo.models import resolve_model
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.selfplay.exchange import TrainingBatch
from azr_nemo.trainer.loop import train
from azr_nemo.trainer.session import prompt_options
from azr_nemo.warmup.generator import generate_tasks
from azr_nemo.warmup.warm_start import batches, warm_start

SEEDS = Path(__file__).parent.parent / "data" / "seeds.jsonl"
STEPS = 3
TASKS = 4
LAYOUTS = {
    "one": "",
    "tp2": "engine.tensor_parallel=2",
    "pp2": "engine.pipeline_parallel=2",
    "dp2": "",
    "tp2-sequence": "engine.tensor_parallel=2 engine.sequence_parallel=true engine.recompute=true",
    "tp2-pp2": "engine.tensor_parallel=2 engine.pipeline_parallel=2",
    "tp2-dp2": "engine.tensor_parallel=2",
}
SETTINGS = [
    "recipe=tiny-1n0g-megatron",
    "platform=cpu",
    "model.dtype=float32",
    "engine.threads=1",
    "engine.micro_batch_tokens=1024",  # several micro-batches a step
    "warmup.steps=0",
    f"selfplay.steps={STEPS}",
    "selfplay.batch_size=4",
    "rollout.estimate_samples=3",
    "rollout.temperature=0.7",
    "rollout.max_propose_tokens=80",
    "rollout.max_solve_tokens=32",
    "eval.items=0",
    "data.seed_factor=1",
    f"data.seed_files=[{SEEDS}]",
    "executor.workers=1",
    f"checkpoint.every={STEPS}",
    "logging.tensorboard=false",
    "logging.console=plain",
    # Steps large enough that the weights move a hundred times further than they may differ. Adam divides a gradient by its own size: where it
    # is all rounding, the default eps of 1e-8 would turn rounding into steps.
    "optim.lr=3e-4",
    "optim.eps=1e-4",
]


def memorise(out: Path, steps: int = 90) -> None:
    """Makes OUT/model: a tiny model that has learnt four programs nearly by heart, so that some of what it proposes holds and is solved."""
    config = load_settings([*SETTINGS, f"run_dir={out / 'none'}", f"warmup.steps={steps}", "warmup.batch_size=8", "warmup.lr=3e-3"])
    model_dir = resolve_model(config.model)
    engine = build_engine(config, model_dir)
    assert engine is not None
    with make_executor(config.executor) as executor:
        tasks = sorted(generate_tasks(60, 5, executor, config.selfplay.induction_pairs), key=lambda task: len(task.program))[:TASKS]
    stream = batches(tasks, prompt_options(config, engine.tokenizer), config, engine.encode, engine.encode_response)
    warm_start(engine, stream, config.warmup, lambda step, loss: print(f"{step}: {loss:.3f}") if step % 10 == 0 else None)
    save_hf(engine.weights(), read_config(model_dir), model_dir, out / "model")
    engine.close()


def run(out: Path, layout: str) -> None:
    logprobs: list[torch.Tensor] = []
    weights: dict[str, torch.Tensor] = {}
    update, close = Actor.update, MegatronEngine.close

    def updating(self: Actor, batch: TrainingBatch) -> dict[str, float]:
        logprobs.append(self.logprobs(batch.prompt_ids, batch.response_ids))
        return update(self, batch)

    def closing(self: MegatronEngine, *how: Any, **named: Any) -> None:
        if not weights:
            weights.update({name: tensor.clone() for name, tensor in self.weights()})
        close(self, *how, **named)

    Actor.update, MegatronEngine.close = updating, closing  # type: ignore[method-assign]
    try:
        code = train(load_settings([*SETTINGS, f"model.path={out / 'model'}", f"run_dir={out / layout}", *LAYOUTS[layout].split()]))
        assert code == 0
    finally:
        Actor.update, MegatronEngine.close = update, close  # type: ignore[method-assign]
    if weights:  # on rank 0
        save_file({**weights, **{f"logprobs/{place}": found for place, found in enumerate(logprobs)}}, out / layout / "learnt.safetensors")


if __name__ == "__main__":
    folder, *layouts = sys.argv[1:]
    os.environ["AZR_NEMO_CACHE"] = str(Path(folder) / "cache")
    if layouts[0] == "one":
        memorise(Path(folder))
    for name in layouts:
        run(Path(folder), name)
        assert not distributed.has_failed()
