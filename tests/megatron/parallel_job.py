"""Run under torchrun with two ranks: the same work in several layouts, results written by rank 0 for the test to compare.

parallel_job.py layouts MODEL_DIR OUT    each layout: log-probabilities, two updates, samples, a checkpoint, an update that spoils rank 1
parallel_job.py failure MODEL_DIR OUT    rank 1 fails while sampling
"""

import itertools
import json
import sys
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from tiny_models import EchoRollout, run_config, training_batch

import azr_nemo.rollout
from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.commands import Command, announce, receive
from azr_nemo.megatron.controller import MegatronEngine, Worker
from azr_nemo.megatron.finite_weights import Diverged
from azr_nemo.selfplay.exchange import Completion, Prompt, PromptBatch, TrainingBatch
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.task import PromptText, Role, TaskType

LAYOUTS: dict[str, dict[str, int]] = {
    "tp2": {"tensor_parallel": 2},
    "tp2-sequence": {"tensor_parallel": 2, "sequence_parallel": True},
    "pp2": {"pipeline_parallel": 2, "recompute": True},
    "dp2": {},
    "dp2-gspo": {},
    "pp2-gspo": {"pipeline_parallel": 2},
    "tp2-lora": {"tensor_parallel": 2, "recompute": True},
    "tp2-sequence-lora": {"tensor_parallel": 2, "sequence_parallel": True},
    "pp2-lora": {"pipeline_parallel": 2, "recompute": True},
}
PROMPTS = [Prompt(PromptText("x" * n), Role.SOLVE, TaskType.DEDUCTION, samples=n) for n in (3, 1, 2)]


def settings(layout: str) -> RunConfig:
    """The layouts of gspo also have means over responses, several optimizer steps an update, whose rows the ranks share, and importance weights."""
    config = run_config(**LAYOUTS[layout])
    config.optim.eps = 1e-3
    if layout.endswith("gspo"):
        config.optim.loss, config.optim.aggregation = "gspo", "sequence_mean"
        config.optim.mini_batches, config.optim.importance_sampling = 3, "on"
    if layout.endswith("lora"):
        config.model.lora.rank, config.model.lora.alpha = 4, 8.0
    return config


class FailingRollout(EchoRollout):
    def generate(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        if distributed.rank() == 1:
            raise UserError("the sampler broke")
        return super().generate(*args, **kwargs)


def layouts(model_dir: Path, out: Path) -> None:
    for name in LAYOUTS:
        config = settings(name)
        worker = Worker(config, model_dir)
        batch = training_batch()
        logprobs = worker.actor.logprobs(batch.prompt_ids, batch.response_ids)
        if distributed.rank():
            spoil_after(worker.actor, updates=2)
            while (command := receive()).name != "close":
                worker.run(command)
            continue
        engine = MegatronEngine(config, model_dir, worker)
        metrics = [engine.update(training_batch(seed=seed)) for seed in (0, 1)]
        seen: dict[tuple[int, int], Completion] = {}
        arrived = partial(_arrived, seen)
        groups = engine.generate(PromptBatch(PROMPTS, "solve", arrived), seed=5)
        next(engine.weights())  # a reader that stops early must not leave the other ranks waiting
        weights = {key: tensor.clone() for key, tensor in engine.weights()}
        (out / name).mkdir(parents=True)
        written = engine.start_saving(out / name).wait(60.0)
        save_file({**weights, "logprobs": logprobs}, out / f"{name}.safetensors")
        samples = [[completion.response_ids for completion in group] for group in groups]
        results = {"metrics": metrics, "samples": samples, "seen": sorted(seen), "written": written, "diverged": diverged(engine)}
        (out / f"{name}.json").write_text(json.dumps(results))
        announce(Command("close", {"exit_code": 0}))


def spoil_after(actor: Actor, updates: int) -> None:
    """From then on an update leaves one weight of this rank that is no number."""
    update, left = actor.update, itertools.count(-updates)

    def spoilt(batch: TrainingBatch) -> dict[str, float]:
        metrics = update(batch)
        if next(left) >= 0:
            next(actor.model.parameters()).data.view(-1)[-1] = float("nan")
        return metrics

    actor.update = spoilt  # type: ignore[method-assign]


def diverged(engine: MegatronEngine) -> str:
    try:
        engine.update(training_batch(seed=2))
    except Diverged as error:
        return str(error)
    return ""


def _arrived(seen: dict[tuple[int, int], Completion], index: int, k: int, completion: Completion) -> None:
    seen[index, k] = completion


def failure(model_dir: Path) -> None:
    azr_nemo.rollout.make_rollout = FailingRollout  # type: ignore[attr-defined]
    worker = Worker(run_config(), model_dir)
    if distributed.rank():
        worker.serve()
    else:
        MegatronEngine(run_config(), model_dir, worker).generate(PromptBatch(PROMPTS, "solve"), seed=5)


if __name__ == "__main__":
    azr_nemo.rollout.make_rollout = EchoRollout  # type: ignore[attr-defined]
    mode, folder, *models = sys.argv[1:]
    if mode == "layouts":
        for number, model in enumerate(models):
            layouts(Path(model), Path(folder) / str(number))
    else:
        try:
            failure(Path(models[0]))
        except UserError as error:
            print(f"[rank {distributed.rank()}] {error}", flush=True)
            sys.exit(2)
