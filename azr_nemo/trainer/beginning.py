"""How a run begins, or goes on: warm start, seeds, what is known before the first step; or a checkpoint, and what was logged after it dropped."""

import os
import tempfile
from pathlib import Path

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.megatron.controller import MegatronEngine
from azr_nemo.megatron.huggingface import read_config, save_hf
from azr_nemo.models import resolve_model
from azr_nemo.observe.lanes import rewind_lanes
from azr_nemo.runs.checkpoints import Checkpoint
from azr_nemo.trainer.assembly import Run, warmed_directory
from azr_nemo.trainer.reporting import StepReport
from azr_nemo.trainer.session import ask_for_seeds, load_seed_files, prompt_options
from azr_nemo.warmup.generator import generate_tasks
from azr_nemo.warmup.warm_start import batches, warm_start


def begin(run: Run) -> None:
    """A run without a checkpoint: warm start, seeds, held-out accuracy before training, the checkpoint of step 0. A seeding that was killed
    goes on."""
    warm_up(run)
    run.buffer.remove_after(0)
    run.metrics.rewind(-1)
    run.rollouts.rewind(-1)
    rewind_lanes(run.run_dir, -1)
    load_seed_files(run.config, run.buffer, run.executor, run.console)
    ask_for_seeds(run.session.proposer, run.driver, run.stop.check)
    StepReport(run.config, run.metrics, run.console).start(run.evaluate(0, always=True))
    run.save(0)
    run.finish_saving()  # until then there is no buffer to go back to, and the first step changes it


def resume(run: Run, checkpoint: Checkpoint) -> None:
    """Takes up the run where the checkpoint left it; what was logged of later steps is dropped, as they run again."""
    try:
        with run.console.phase("load checkpoint") as phase, progress.heard_by(phase):
            run.engine.load(checkpoint.path)
    except UserError as error:
        before = run.saver.checkpoints.before(checkpoint)
        raise UserError(f"{error}; if it is damaged, resume={before} goes on from the one before it" if before else str(error)) from error
    run.metrics.rewind(checkpoint.step)
    run.rollouts.rewind(checkpoint.step)
    rewind_lanes(run.run_dir, checkpoint.step)
    run.console.note(f"resumed after step {checkpoint.step} from {checkpoint.path}")


def warm_up(run: Run) -> None:
    """The supervised start of a model that is too small to begin alone, unless its weights are there already: trains the engine on generated easy
    tasks and keeps the weights, written aside and renamed. A stop request ends it."""
    config, engine = run.config, run.engine
    if not config.warmup.steps:
        return
    model_dir = resolve_model(config.model)
    target = warmed_directory(config, model_dir)
    if target.is_dir():
        return

    def learnt(step: int, loss: float) -> None:
        phase.advance(1, loss=loss)
        run.stop.check()

    with run.console.phase("warm-start tasks") as running:
        tasks = generate_tasks(config.warmup.programs, config.warmup.seed, run.executor, config.selfplay.induction_pairs, phase=running)
    stream = batches(tasks, prompt_options(config, engine.tokenizer), config, engine.encode, engine.encode_response)
    with run.console.phase("warm_start", config.warmup.steps) as phase:
        warm_start(engine, stream, config.warmup, learnt)
    with run.console.phase("keep warm-started weights"):
        _keep(engine, model_dir, target)
    engine.refit()


def _keep(engine: MegatronEngine, model_dir: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".warm-") as temporary:
        made = Path(temporary) / "model"
        save_hf(engine.weights(), read_config(model_dir), model_dir, made)
        if not target.is_dir():
            os.rename(made, target)
