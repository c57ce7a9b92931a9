"""The training run: warm start, seeding, then steps of self-play, each logged, and saved at every `checkpoint.every`."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.megatron.distributed import open_store, rank, world_size
from azr_nemo.megatron.finite_weights import Diverged, way_back
from azr_nemo.megatron.worker import MegatronEngine, Worker, build_engine
from azr_nemo.models import resolve_model
from azr_nemo.observe.console import Console
from azr_nemo.observe.memory import MemoryMeter
from azr_nemo.observe.metrics import MetricsLog
from azr_nemo.observe.rollouts import RolloutLog
from azr_nemo.observe.timing import PhaseClock
from azr_nemo.observe.weights_and_biases import require_wandb
from azr_nemo.sandbox.executor import Executor
from azr_nemo.sandbox.metered import MeteredExecutor
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import TrainingBatch
from azr_nemo.selfplay.step import StepResult
from azr_nemo.settings.compose import as_yaml
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.checkpoints import Checkpoint, Checkpoints
from azr_nemo.trainer.driving import Driver
from azr_nemo.trainer.dry_run import check_run
from azr_nemo.trainer.dtype import with_dtype
from azr_nemo.trainer.executors import make_executor
from azr_nemo.trainer.guard import Guard
from azr_nemo.trainer.reporting import StepReport, open_sinks
from azr_nemo.trainer.rollouts import rollouts
from azr_nemo.trainer.run_directory import Outcome, RunDirectory
from azr_nemo.trainer.saving import Saver
from azr_nemo.trainer.seeding import ask_for_seeds, read_seeds
from azr_nemo.trainer.session import Session, buffer_path, make_session
from azr_nemo.trainer.stopping import StoppedAtOnce, StopRelay, StopRequest
from azr_nemo.trainer.warming import warm_up, warmed_directory


@dataclass
class Run:
    """The parts of a run on rank 0 that its phases share."""

    config: RunConfig
    run_dir: Path
    engine: MegatronEngine
    session: Session
    buffer: TaskBuffer
    driver: Driver
    console: Console
    saver: Saver
    metrics: MetricsLog
    rollouts: RolloutLog
    executor: MeteredExecutor
    stop: StopRequest

    @property
    def clock(self) -> PhaseClock:
        return self.driver.clock


def train(config: RunConfig, only_seed: bool = False) -> int:
    """Runs or resumes the configured run and returns the exit code: 0 when all is done, 75 when a signal stopped it (`Outcome`). On ranks
    other than 0 it serves rank 0. only_seed: stop before the first step, with the seeds in the checkpoint of step 0.

    Raises UserError for what the user can mend and ExecutorUnavailable when the sandbox is lost.
    """
    check_run(config, world_size())
    checkpoints = Checkpoints(Path(config.run_dir), config.checkpoint.keep, config.checkpoint.keep_every)
    if rank():
        return follow(config, checkpoints)
    with RunDirectory(Path(config.run_dir)) as run_dir, StopRequest() as stop, Console(config.logging.console) as console:
        checkpoints.clear_unfinished()
        notes: list[str] = []
        with console.phase("find checkpoint"):
            checkpoint = checkpoints.find(config.resume, notes.append, config.selfplay.steps)
        config = with_dtype(config, checkpoint)
        done = checkpoint.step if checkpoint else 0
        title = f"AZR-NeMo: {config.recipe or config.model.path}"
        lines = [f"run_dir {run_dir.path}", f"model {config.model.path}, {config.model.dtype}"]
        console.start_run(title, lines, config.selfplay.steps, done)
        for sentence in notes:
            console.note(sentence)
        try:
            outcome = lead(config, checkpoints, checkpoint, run_dir.path, console, stop, only_seed)
        except StoppedAtOnce:
            outcome = Outcome("stopped", done, stop.requested)
        if outcome.kind == "stopped":
            what = f"after step {outcome.step}, which is saved" if outcome.step else "before the first step"
            console.note(f"stopped by {outcome.signal} {what}: the same command goes on from there")
        run_dir.conclude(outcome)
        return outcome.exit_code


def follow(config: RunConfig, checkpoints: Checkpoints) -> int:
    """A rank other than 0: serves rank 0 until it closes the engine, and returns its exit code."""
    relay = StopRelay()
    # Rank 0 alone reads the files for their hashes; when it goes on from an earlier one, that has the same dtype and steps left to do.
    checkpoint = checkpoints.find(config.resume)
    if checkpoint and checkpoint.step >= config.selfplay.steps:
        return 0  # as rank 0 does
    config = with_dtype(config, checkpoint)
    worker = Worker(config, starting_weights(config, resolve_model(config.model)))
    relay.connect(open_store)
    exit_code = worker.serve()
    relay.leave()
    return exit_code


def lead(
    config: RunConfig,
    checkpoints: Checkpoints,
    checkpoint: Checkpoint | None,
    run_dir: Path,
    console: Console,
    stop: StopRequest,
    only_seed: bool,
) -> Outcome:
    """Rank 0: puts the run together, goes through its phases and ends the other ranks."""
    done = checkpoint.step if checkpoint else 0
    if done >= config.selfplay.steps:
        console.note(f"all {done} steps are done: raise selfplay.steps to go on, or give another run_dir to start anew")
        return Outcome("done", done)
    if config.logging.wandb:
        require_wandb()
    with ExitStack() as stack:
        with console.phase("start executor"):
            executor = MeteredExecutor(stack.enter_context(make_executor(config.executor)))
        console.note(f"executor: {executor.describe()}")
        model_dir = resolve_model(config.model, stage=console.stage)
        start = starting_weights(config, model_dir)
        with console.phase("load model") as phase, progress.heard_by(phase):
            engine = build_engine(config, start, console.note)
        assert engine is not None
        stack.callback(engine.close, exit_code=2)  # unless it is closed before, in good order
        stop.connect(open_store())
        if checkpoint:
            buffer = TaskBuffer.restore(checkpoint.path / "buffer.sqlite", buffer_path(run_dir), config.selfplay.buffer_capacity)
        else:
            buffer = TaskBuffer(buffer_path(run_dir), config.selfplay.buffer_capacity)
        stack.callback(buffer.close)
        metrics = MetricsLog(run_dir, config.logging.tensorboard, open_sinks(config, run_dir, console))
        stack.callback(metrics.close)
        log = stack.enter_context(RolloutLog(run_dir, config.logging.rollouts, config.seed))
        session = make_session(config, engine, executor, buffer, console)
        driver = Driver(engine, PhaseClock(memory=MemoryMeter().lap), console, config.seed)
        saver = Saver(checkpoints, engine, as_yaml(config), config.checkpoint.asynchronous, config.runtime.watchdog_s, log.flush)
        stack.enter_context(saver)
        run = Run(config, run_dir, engine, session, buffer, driver, console, saver, metrics, log, executor, stop)
        try:
            if checkpoint:
                resume(run, checkpoint)
            else:
                if config.warmup.steps and start == model_dir:
                    warm_up(engine, config, model_dir, warmed_directory(config, model_dir), executor, console, stop.check)
                begin(run, lambda: load_seeds_into(run, executor))
            outcome = Outcome("done", done) if only_seed else run_steps(run, done)
        except StoppedAtOnce:
            outcome = Outcome("stopped", done, stop.requested)
        finish_saving(run)
        log.close()
        stop.leave()
        engine.close(outcome.exit_code)
    return outcome


def starting_weights(config: RunConfig, model_dir: Path) -> Path:
    """The warm-started weights where they are wanted and already made, else the model's own."""
    if config.warmup.steps and (warmed := warmed_directory(config, model_dir)).is_dir():
        return warmed
    return model_dir


def load_seeds_into(run: Run, executor: Executor) -> None:
    """The seeds of `data.seed_files`, as far as they hold here."""
    if files := [Path(name) for name in run.config.data.seed_files]:
        for sentence in read_seeds(run.config, files, run.buffer, executor, run.console, run.config.eval.items > 0).sentences():
            run.console.note(sentence)


def begin(run: Run, load_files: Callable[[], None]) -> None:
    """A run without a checkpoint: seeds, held-out accuracy before training, the checkpoint of step 0. A seeding that was killed goes on."""
    run.buffer.remove_after(0)
    run.metrics.rewind(-1)
    run.rollouts.rewind(-1)
    load_files()
    ask_for_seeds(run.session.proposer, run.driver, run.stop.check)
    StepReport(run.config, run.metrics, run.console).start(evaluate(run, 0, always=True))
    save(run, 0)
    finish_saving(run)  # until then there is no buffer to go back to, and the first step changes it


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
    run.console.note(f"resumed after step {checkpoint.step} from {checkpoint.path}")


def run_steps(run: Run, done: int) -> Outcome:
    """Steps done+1 .. selfplay.steps. A stop request ends the run after the step in hand, saved."""
    run.stop.check()
    run.clock.lap()
    run.executor.lap()
    guard = Guard(run.config.eval.stop_if_worse)
    guard.recall(run.metrics.rows())
    step_report = StepReport(run.config, run.metrics, run.console)
    for step in range(done + 1, run.config.selfplay.steps + 1):
        run.driver.tokens = 0
        result = run.driver.drive(run.session.selfplay.step(step), f"step/{step}")
        sampled = run.driver.tokens
        trained = learn(run, step, result.batch)
        last = step == run.config.selfplay.steps
        held_out = evaluate(run, step, always=last)
        report(run, step_report, step, result, trained, sampled, held_out)
        if worse := guard.judge(step, held_out):
            run.console.note(worse)
        stopped = run.stop.requested
        if last or worse or stopped or step % run.config.checkpoint.every == 0:
            save(run, step)  # after the step's line in the logs: a resumed run drops lines, it cannot make up for missing ones
        run.saver.check()
        if worse or (stopped and not last):
            return Outcome("worse", step) if worse else Outcome("stopped", step, stopped)
    return Outcome("done", run.config.selfplay.steps)


def learn(run: Run, step: int, batch: TrainingBatch) -> dict[str, float]:
    """The update and its metrics. Raises UserError, naming the checkpoint to go on from, when the weights do not stand it."""
    try:
        return run.driver.update(batch)
    except Diverged as error:
        raise UserError(way_back(error, step, run.saver.latest())) from error


def evaluate(run: Run, step: int, always: bool) -> dict[str, float]:
    """Held-out accuracy and benchmarks, when they are due at this step."""
    due = always or (run.config.eval.every and step % run.config.eval.every == 0)
    metrics: dict[str, float] = {}
    for place, evaluation in enumerate(run.session.evaluations if due else []):
        metrics |= run.driver.drive(evaluation.evaluate(), f"evaluate/{step}/{place}" if place else f"evaluate/{step}")
    return metrics


def save(run: Run, step: int) -> None:
    """Weights, optimizer, buffer, configuration: everything that the next step depends on. What the run waits for is the copy of it, and the
    checkpoint before, should that still be in the making."""
    with run.clock.phase("save"), run.console.phase("save") as phase, progress.heard_by(phase):
        run.saver.save(step, run.buffer)


def finish_saving(run: Run) -> None:
    """Until the checkpoint in the making is whole."""
    with run.console.phase("finish saving") as phase, progress.heard_by(phase):
        run.saver.wait()


def report(
    run: Run, to: StepReport, step: int, result: StepResult, trained: dict[str, float], sampled: int, held_out: dict[str, float]
) -> None:
    """The step's line on screen and in the logs, and its rollouts."""
    times = run.clock.lap()
    generating = sum(times.get(f"time/{phase}_s", 0.0) for phase in ("propose", "estimate", "solve", "evaluate"))
    metrics = {
        **result.metrics,
        **{f"train/{name}": value for name, value in trained.items()},
        **held_out,
        **times,
        **run.executor.lap(),
        "throughput/generated_tokens_per_s": sampled / max(generating, 1e-9),
        "throughput/trained_tokens_per_s": float(result.batch.mask.sum()) / max(times.get("time/update_s", 0.0), 1e-9),
    }
    to.step(step, metrics, result.attempts)
    run.rollouts.write(step, rollouts(result))
