"""`azr-nemo train engine=aligner`: puts NeMo-Aligner's trainer together on every rank, and self-play on rank 0, and lets it fit."""

import importlib.util
import math
import signal
from contextlib import ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path

from azr_nemo.aligner import cpu
from azr_nemo.aligner.selfplay import Leading
from azr_nemo.errors import UserError
from azr_nemo.observe.console import Console
from azr_nemo.observe.weights_and_biases import require_wandb
from azr_nemo.planning import aligner_layout
from azr_nemo.runs.checkpoints import Checkpoint, Checkpoints
from azr_nemo.runs.run_directory import Outcome, RunDirectory
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.sandbox.metered import MeteredExecutor
from azr_nemo.settings.compose import as_yaml
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.stopping import SIGNALS, StopRequest


def train(config: RunConfig) -> int:
    """Runs or resumes the configured run, on every rank of the job; returns the exit code: 0 when all is done, 75 when a signal stopped it.

    Raises UserError for what the user can mend and ExecutorUnavailable when the sandbox is lost.
    """
    if importlib.util.find_spec("nemo_aligner") is None:
        raise UserError(
            "engine=aligner needs NeMo-Aligner, which has an environment of its own: make it with `make aligner` and start the run with "
            ".venv-aligner/bin/azr-nemo train engine=aligner ..."
        )
    aligner_layout.data_parallel_size(config)
    checkpoints = Checkpoints(Path(config.run_dir), config.checkpoint.keep, config.checkpoint.keep_every)
    if aligner_layout.rank():
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: None)  # rank 0 hears the same signal and decides
        # Each rank loads its part of the checkpoint by itself, so each finds out by itself which one is whole.
        checkpoint = checkpoints.find(config.resume, hashed_below=config.selfplay.steps)
        if checkpoint is None or checkpoint.step < config.selfplay.steps:  # rank 0 says so and returns where nothing is left to do
            _fit(config, checkpoints, checkpoint, None)
        return 0
    with ExitStack() as stack:
        run_dir = stack.enter_context(RunDirectory(Path(config.run_dir)))
        stop = stack.enter_context(StopRequest())
        console = stack.enter_context(Console(config.logging.console))
        with console.phase("find checkpoint"):
            checkpoint = checkpoints.find(config.resume, console.note, config.selfplay.steps)
        done = checkpoint.step if checkpoint else 0
        title = f"AZR-NeMo: {config.recipe or config.model.path}"
        lines = [f"run_dir {config.run_dir}", f"model {config.model.path}", layout_line(config)]
        console.start_run(title, lines, config.selfplay.steps, done)
        if done >= config.selfplay.steps:
            console.note(f"all {done} steps are done: raise selfplay.steps to go on, or give another run_dir to start anew")
            return Outcome("done", done).exit_code
        checkpoints.clear_unfinished()
        step = _fit(config, checkpoints, checkpoint, Leading(stack, run_dir.path, console, stop))
        outcome = Outcome("done", step) if step >= config.selfplay.steps else Outcome("stopped", step, stop.requested)
        run_dir.conclude(outcome)
        if outcome.kind == "stopped":
            console.note(f"stopped by {outcome.signal} after step {step}, which is saved: the same command goes on from there")
    return outcome.exit_code


def layout_line(config: RunConfig) -> str:
    """Ranks and rows in words."""
    engine = config.engine
    return (
        f"{aligner_layout.world_size()} ranks: tensor parallel {engine.tensor_parallel}, pipeline parallel {engine.pipeline_parallel}, "
        f"data parallel {aligner_layout.data_parallel_size(config)}; {aligner_layout.global_batch_size(config)} rows a step"
    )


class _StopTimer:
    """PPOTrainer's run_timer: `is_finished` when a signal has asked rank 0 to stop, so the step is saved and `fit` ends. Collective."""

    def __init__(self, stop: StopRequest | None):
        self.stop = stop

    def start_time(self) -> None:
        """Signals need no clock."""

    def is_finished(self) -> bool:
        from azr_nemo.aligner.collectives import broadcast

        return bool(broadcast(bool(self.stop and self.stop.requested)))


def _fit(config: RunConfig, checkpoints: Checkpoints, checkpoint: Checkpoint | None, leading: Leading | None) -> int:
    """From the model to the last step; returns the steps that are done."""
    executor = None
    if leading:
        if config.logging.wandb:
            require_wandb()
        executor = MeteredExecutor(leading.stack.enter_context(make_executor(config.executor)))
        leading.console.note(f"executor: {executor.describe()}")
    cpu.prepare()
    quiet()
    from azr_nemo.aligner import gpt_model
    from azr_nemo.aligner.dataset import PromptSource
    from azr_nemo.aligner.leader import LeadingEngine
    from azr_nemo.aligner.nemo_checkpoint import FOLDER, CheckpointCallback, restore
    from azr_nemo.aligner.sampler_ranks import Sampler
    from azr_nemo.aligner.trainer import SelfPlayPPOTrainer

    weights = checkpoint.path / FOLDER if checkpoint else Path(config.model.path)
    if checkpoint and not weights.is_dir():
        raise UserError(f"{checkpoint.path} is not a checkpoint of engine=aligner: give resume=PATH of one, or another run_dir")
    with leading.console.phase("load model") if leading else nullcontext():
        trainer, actor, optimizer, scheduler = gpt_model.build(config, weights)
    if not math.isfinite(actor.growth()):
        raise UserError(f"the weights in {weights} are not finite: give those from before the run diverged")
    counters = restore(actor, trainer.strategy, scheduler, checkpoint.path) if checkpoint else None
    source = PromptSource(
        config.selfplay.steps, aligner_layout.global_batch_size(config), config.rollout.max_batch_rows, actor.tokenizer.eos_id
    )
    sampler = Sampler(actor, source, config)
    callback = CheckpointCallback(actor, trainer.strategy, scheduler, checkpoints)
    selfplay = None
    if leading and executor:
        selfplay = leading.open(config, checkpoint, executor, LeadingEngine(actor, sampler, config))
        callback.before, callback.buffer, callback.config = selfplay.settle, selfplay.session.selfplay.buffer, as_yaml(config)
        leading.stop.at_once = False
        leading.console.note(f"nemo-aligner {version('nemo-aligner')}: {lineage(SelfPlayPPOTrainer)}, {lineage(type(actor))}")
        if checkpoint:
            leading.console.note(f"resumed after step {checkpoint.step} from {checkpoint.path}")
    ppo = SelfPlayPPOTrainer(
        config, sampler, selfplay, source=source, model=actor, optimizer=optimizer, scheduler=scheduler, callback=callback,
        run_timer=_StopTimer(leading.stop if leading else None),
    )  # fmt: skip
    callback.state = ppo.state_dict
    if counters:
        ppo.load_state_dict(counters)
    else:
        ppo.seed()
        callback.save(0)
    ppo.fit()
    return ppo.step


def quiet() -> None:
    """NeMo tells of every parallel group and of each of a hundred settings that its checkpoints do not have; what matters to a run it raises."""
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)


def lineage(kind: type) -> str:
    """A class and NeMo-Aligner's own that it extends."""
    base = next(parent for parent in kind.__mro__[1:] if parent.__module__.startswith("nemo_aligner."))
    return f"{kind.__name__}({base.__module__}.{base.__name__})"
