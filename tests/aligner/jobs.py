"""What the tests have NeMo-Aligner do, each job in processes of its own: it can hold one model and one parallel layout a process."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from canned import CannedEngine, fill, settings

from azr_nemo.settings.schema import RunConfig


def aligner_settings(model: Path, run_dir: Path, **engine: int) -> RunConfig:
    config = settings(str(model), str(run_dir), **engine)
    config.engine.name, config.rollout.name = "aligner", "nemo"
    config.aligner.micro_batch = 2
    return config


def make_trainer(config: RunConfig, canned: bool) -> Any:
    """A SelfPlayPPOTrainer over a buffer of adders, with an executor that knows them, and plain gradient descent; on every rank of the job.
    canned: rank 0's step gets canned completions, else those of the model."""
    from sample_tasks import FakeExecutor

    from azr_nemo.aligner import gpt_model as models
    from azr_nemo.aligner.dataset import PromptSource
    from azr_nemo.aligner.leader import LeadingEngine
    from azr_nemo.aligner.nemo_checkpoint import CheckpointCallback
    from azr_nemo.aligner.sampler_ranks import Sampler
    from azr_nemo.aligner.selfplay import SelfPlayRun
    from azr_nemo.aligner.trainer import SelfPlayPPOTrainer
    from azr_nemo.observe.console import Console
    from azr_nemo.observe.metrics import MetricsLog
    from azr_nemo.observe.rollout_log import RolloutLog
    from azr_nemo.observe.timing import PhaseClock
    from azr_nemo.planning import aligner_layout as layouts
    from azr_nemo.runs.checkpoints import Checkpoints
    from azr_nemo.sandbox.metered import MeteredExecutor
    from azr_nemo.selfplay.buffer import TaskBuffer
    from azr_nemo.trainer.driver import Driver
    from azr_nemo.trainer.session import make_session

    trainer, actor, _, scheduler = models.build(config, Path(config.model.path))
    source = PromptSource(1, layouts.global_batch_size(config), config.rollout.max_batch_rows, actor.tokenizer.eos_id)
    sampler, folder, selfplay = Sampler(actor, source, config), Path(config.run_dir), None
    if torch.distributed.get_rank() == 0:
        folder.mkdir(parents=True)
        engine: Any = CannedEngine(actor.tokenizer.tokenizer) if canned else LeadingEngine(actor, sampler, config)
        buffer, executor = TaskBuffer(folder / "buffer.sqlite", 100), MeteredExecutor(FakeExecutor())
        fill(buffer)
        driver = Driver(engine, PhaseClock(), Console("plain"), config.seed)
        logs = MetricsLog(folder, False), RolloutLog(folder, 0)
        selfplay = SelfPlayRun(config, make_session(config, engine, executor, buffer), driver, *logs, executor)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(actor.parameters(), lr=0.5)
    actor._optimizer = optimizer
    callback = CheckpointCallback(actor, trainer.strategy, scheduler, Checkpoints(folder, 1))
    return SelfPlayPPOTrainer(
        config, sampler, selfplay, source=source, model=actor, optimizer=optimizer, scheduler=scheduler, callback=callback
    )


def step_with_canned_completions(out: Path, model: Path, name: str, layout: dict[str, int]) -> None:
    """The canned step through the real trainer: rollout data, log-probabilities, one plain gradient step, a greedy sample of NeMo's own.

    Writes OUT/NAME.json and OUT/NAME.safetensors, and a checkpoint in OUT/NAME/checkpoints whose `nemo` folder can be converted.
    """
    from nemo_aligner.utils import parallel_state
    from safetensors.torch import save_file

    from azr_nemo.aligner.collectives import gather_rows

    ppo = make_trainer(aligner_settings(model, out / name, **layout), canned=True)
    actor = ppo.model
    data, _, _ = ppo.generate_rollouts()
    own = _rows(data) if torch.distributed.get_rank() == parallel_state.get_model_parallel_src_rank() else []
    rows = gather_rows(own)
    _, metrics = ppo.run_training(iter([dict(data)]))
    actor.prepare_for_inference()
    greedy: dict[int, list[int]] = {}
    order = {"rows": [[5, 6, 7, 8], [300, 301], [9] * 12], "max_new_tokens": 8, "temperature": 0.0, "seed": "test"}
    ppo.sampler.sample(order, lambda index, ids, finished: greedy.update({index: list(ids)}))
    ppo.ckpt_callback.save(1)
    if torch.distributed.get_rank() == 0:
        numbers = {"metrics": {key: float(value) for key, value in metrics.items()}, "greedy": [greedy[k] for k in sorted(greedy)]}
        (out / f"{name}.json").write_text(json.dumps(numbers))
        save_file(_tensors(rows), out / f"{name}.safetensors")


def facts_of_the_actor(out: Path, model: Path) -> None:
    """What test_actor.py asks of the actor alone, as numbers: OUT/facts.json."""
    from azr_nemo.aligner.ppo_actor import entropy

    ppo = make_trainer(aligner_settings(model, out / "facts"), canned=True)
    actor, found = ppo.model, {}
    logits = torch.randn(2, 5, 400, generator=torch.Generator().manual_seed(1)).mul_(3).requires_grad_()
    ours = entropy(logits)
    dense = -(logits.log_softmax(-1).exp() * logits.log_softmax(-1)).sum(-1)
    weights = torch.arange(10.0).view(2, 5)
    (mine,) = torch.autograd.grad((ours * weights).sum(), logits)
    (theirs,) = torch.autograd.grad((dense * weights).sum(), logits)
    found["entropy"] = float((ours - dense).abs().max())
    found["entropy_gradient"] = float((mine - theirs).abs().max())

    data, _, _ = ppo.generate_rollouts()
    for micro_batch in (2, 6):
        actor.cfg.micro_batch_size = micro_batch
        found[f"gradient_{micro_batch}"] = _gradient(ppo, data).tolist()
    cut = data["mask"].sum(1).argsort()[:2]  # the shortest responses: those that were cut off
    ends = [int(row.nonzero()[-1]) + 1 for row in data["mask"][cut]]
    found["ended"] = [int(data["response_tokens"][row, end]) == actor.tokenizer.eos_id for row, end in zip(cut, ends, strict=True)]
    rows = {name: tensor.clone() for name, tensor in data.items()}
    others = torch.ones(len(rows["mask"]), dtype=torch.bool)
    others[cut] = False
    rows["mask"][others] = 0
    found["gradient_of_cut"] = float(_gradient(ppo, rows).norm())
    parameters = list(actor.parameters())
    gradients = [parameter.grad.clone() for parameter in parameters]
    from azr_nemo.aligner.cpu import clip_grad_norm

    found["norm"] = float(clip_grad_norm(parameters, 1e-3))
    expected = torch.nn.utils.get_total_norm(gradients)
    found["torch_norm"], found["clipped_norm"] = float(expected), float(torch.nn.utils.get_total_norm([p.grad for p in parameters]))
    (out / "facts.json").write_text(json.dumps(found))


def _gradient(ppo: Any, data: dict[str, torch.Tensor]) -> torch.Tensor:
    """The whole gradient of the loss over these rows, flat."""
    actor = ppo.model
    ppo.optimizer.zero_grad()
    actor.prepare_for_training()
    actor.prepare_for_training_step()
    actor.get_loss_and_metrics(batch=dict(data), forward_only=False)
    actor.finish_training_step()
    return torch.cat([parameter.grad.flatten() for parameter in actor.parameters()])


class RecordedTensorRT:
    """GPTGenerateTRTLLM's methods that the actor calls, in its signatures (nemo_aligner_signatures.json), answering at once."""

    def __init__(self, end: int):
        self.end, self.refits, self.freed, self.updates = end, 0, 0, []
        self.rng_generator = torch.Generator()
        self.sampling_config = self

    def update(self, **settings: Any) -> None:
        self.updates.append(settings)

    def refit(self, model: Any) -> None:
        self.refits += 1

    def generate(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        tokens, lengths = inputs
        for row, length in enumerate(lengths.tolist()):
            tokens[row, length], tokens[row, length + 1] = 40 + row, self.end
        return {"response_tokens": tokens[:, : int(lengths.max()) + 2].contiguous(), "response_lengths": lengths + 2}

    def free(self) -> None:
        self.freed += 1


def two_steps_with_tensorrt(out: Path, model: Path) -> None:
    """Two rollout phases whose samples come from where TensorRT-LLM would stand: OUT/tensorrt.json."""
    config = aligner_settings(model, out / "tensorrt")
    ppo = make_trainer(config, canned=False)
    engine = RecordedTensorRT(ppo.model.tokenizer.eos_id)
    ppo.model.use_trtllm_generation, ppo.model.trtllm_generate = True, engine
    rows = []
    for step in (0, 1):
        ppo.step = step
        data, _, _ = ppo.generate_rollouts()
        rows.append([engine.refits, engine.freed, int(data["mask"].sum()), int((data["mask"].sum(1) > 0).sum())])
    (out / "tensorrt.json").write_text(json.dumps({"rows": rows, "updates": engine.updates}))


SCALE = 2**40  # floats cross ranks as integers of so many parts


def _rows(data: dict[str, torch.Tensor]) -> list[list[int]]:
    """This rank's rows as integers: the row's tokens, its log-probabilities and its advantages at response positions."""
    rows = []
    for tokens, mask, logprobs, advantages in zip(
        data["response_tokens"], data["mask"].bool(), data["prev_logprobs"], data["advantages"], strict=True
    ):
        if mask.any():
            numbers = torch.cat([logprobs[mask], advantages[mask]]).double() * SCALE
            end = int(mask.nonzero()[-1]) + 2
            rows.append([end, *tokens[:end].tolist(), *numbers.round().long().tolist()])
    return rows


def _tensors(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Right-padded, in the order of the rows' tokens, which does not depend on who had them."""
    found = []
    for end, *numbers in rows:
        tokens, values = numbers[:end], torch.tensor(numbers[end:]).double() / SCALE
        found.append((tokens, values.chunk(2)))
    found.sort(key=lambda row: row[0])
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "tokens": pad([torch.tensor(tokens) for tokens, _ in found], batch_first=True, padding_value=-1),
        "logprobs": pad([pair[0] for _, pair in found], batch_first=True).contiguous(),
        "advantages": pad([pair[1] for _, pair in found], batch_first=True).contiguous(),
    }


def train_run(overrides: list[str]) -> None:
    """What `azr-nemo train` does, and ends with its exit code."""
    from azr_nemo.aligner.run import train
    from azr_nemo.planning.run_settings import load_settings

    os._exit(train(load_settings(overrides)))
