"""Puts a run together from its settings: executor, model, engine, buffer, roles and logs on rank 0; the other ranks serve it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.megatron.controller import MegatronEngine, Worker, build_engine
from azr_nemo.megatron.distributed import open_store, rank, world_size
from azr_nemo.megatron.platform import choose_dtype, choose_platform
from azr_nemo.megatron.sampling_ranks import serve_samples
from azr_nemo.models import cache_dir, resolve_model
from azr_nemo.observe.console import Console
from azr_nemo.observe.metrics import MetricsLog
from azr_nemo.observe.mlflow import require_mlflow
from azr_nemo.observe.rollout_log import RolloutLog
from azr_nemo.observe.timing import MemoryMeter, PhaseClock
from azr_nemo.observe.weights_and_biases import require_wandb
from azr_nemo.runs.checkpoints import Checkpoint, Checkpoints
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.sandbox.metered import MeteredExecutor
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.settings.compose import as_yaml, from_yaml
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.driver import Driver
from azr_nemo.trainer.flight import Flight, read_in_flight
from azr_nemo.trainer.reporting import open_sinks
from azr_nemo.trainer.saver import Saver
from azr_nemo.trainer.session import Session, buffer_path, make_session
from azr_nemo.trainer.stopping import StopRelay, StopRequest
from azr_nemo.warmup.warm_start import warm_start_key


@dataclass
class Run:
    """The parts of a run on rank 0 that its phases share."""

    config: RunConfig
    run_dir: Path
    engine: MegatronEngine
    session: Session
    buffer: TaskBuffer
    driver: Driver
    flight: Flight
    console: Console
    saver: Saver
    metrics: MetricsLog
    rollouts: RolloutLog
    executor: MeteredExecutor
    stop: StopRequest

    def measured(self) -> dict[str, float]:
        """Times of the step's phases and the executor's throughput. What was sampled beside the update has times of its own, no part of the
        step's length."""
        beside = {
            name: value for name, value in self.flight.ahead.clock.lap().items() if name.startswith("time/") and name != "time/other_s"
        }
        own = self.clock.lap()
        return {**own, **{name: value + own.get(name, 0.0) for name, value in beside.items()}, **self.executor.lap()}

    @property
    def clock(self) -> PhaseClock:
        return self.driver.clock

    def evaluate(self, step: int, always: bool) -> dict[str, float]:
        """Held-out accuracy and benchmarks, when they are due at this step."""
        due = always or (self.config.eval.every and step % self.config.eval.every == 0)
        metrics: dict[str, float] = {}
        for place, evaluation in enumerate(self.session.evaluations if due else []):
            metrics |= self.driver.drive(evaluation.evaluate(), f"evaluate/{step}/{place}" if place else f"evaluate/{step}")
        return metrics

    def save(self, step: int) -> None:
        """Weights, optimizer, buffer, configuration: everything that the next step depends on. What the run waits for is the copy of it, and the
        checkpoint before, should that still be in the making."""
        with self.clock.phase("save"), self.console.phase("save") as phase, progress.heard_by(phase):
            self.saver.save(step, self.buffer, *self.flight.state(step))

    def finish_saving(self) -> None:
        """Until the checkpoint in the making is whole."""
        with self.console.phase("finish saving") as phase, progress.heard_by(phase):
            self.saver.wait()

    def leave(self, exit_code: int) -> None:
        """Everything is on disk, and the other ranks end with this exit code."""
        self.finish_saving()
        self.rollouts.close()
        self.stop.leave()
        self.engine.close(exit_code)


def introduce(config: RunConfig, checkpoints: Checkpoints, console: Console) -> tuple[RunConfig, Checkpoint | None]:
    """Says on the console what is begun or gone on with. Returns the settings, their dtype decided, and the checkpoint to go on from."""
    notes: list[str] = []
    with console.phase("find checkpoint"):
        checkpoint = checkpoints.find(config.resume, notes.append, config.selfplay.steps)
    config = with_dtype(config, checkpoint)
    lines = [f"run_dir {config.run_dir}", f"model {config.model.path}, {config.model.dtype}"]
    console.start_run(f"AZR-NeMo: {config.recipe or config.model.path}", lines, config.selfplay.steps, checkpoint.step if checkpoint else 0)
    for sentence in notes:
        console.note(sentence)
    return config, checkpoint


@contextmanager
def assembled(
    config: RunConfig, run_dir: Path, checkpoints: Checkpoints, checkpoint: Checkpoint | None, console: Console, stop: StopRequest
) -> Iterator[Run]:
    """Rank 0's run, its buffer as the checkpoint has it. Leaving the block closes what `Run.leave` has not. Raises as its parts do."""
    if config.logging.wandb:
        require_wandb()
    if config.logging.mlflow:
        require_mlflow()
    with ExitStack() as stack:
        with console.phase("start executor"):
            executor = MeteredExecutor(stack.enter_context(make_executor(config.executor)))
        console.note(f"executor: {executor.describe()}")
        start = starting_weights(config, resolve_model(config.model, stage=console.stage))
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
        ahead = Driver(engine, PhaseClock(), console, config.seed, driver.lanes)
        flight = Flight(session.selfplay, driver, ahead, read_in_flight(checkpoint.path) if checkpoint else {})
        saver = Saver(checkpoints, engine, as_yaml(config), config.checkpoint.asynchronous, config.runtime.watchdog_s, log.flush)
        stack.enter_context(saver)
        yield Run(config, run_dir, engine, session, buffer, driver, flight, console, saver, metrics, log, executor, stop)


def follow(config: RunConfig, checkpoints: Checkpoints) -> int:
    """A rank other than 0: serves rank 0 until it closes the engine, and returns its exit code."""
    relay = StopRelay()
    # Rank 0 alone reads the files for their hashes; when it goes on from an earlier one, that has the same dtype and steps left to do.
    checkpoint = checkpoints.find(config.resume)
    if checkpoint and checkpoint.step >= config.selfplay.steps:
        return 0  # as rank 0 does
    config = with_dtype(config, checkpoint)
    if rank() >= world_size() - config.sampler_ranks:
        exit_code = serve_samples(config, resolve_model(config.model), lambda: relay.connect(open_store))
        relay.leave()
        return exit_code
    worker = Worker(config, starting_weights(config, resolve_model(config.model)))
    relay.connect(open_store)
    exit_code = worker.serve()
    relay.leave()
    return exit_code


def warmed_directory(config: RunConfig, model_dir: Path) -> Path:
    """Where this configuration's warm-started weights are, or will be."""
    return cache_dir() / "warm" / f"{model_dir.name}-{warm_start_key(model_dir, config)}"


def starting_weights(config: RunConfig, model_dir: Path) -> Path:
    """The warm-started weights where they are wanted and already made, else the model's own."""
    if config.warmup.steps and (warmed := warmed_directory(config, model_dir)).is_dir():
        return warmed
    return model_dir


def with_dtype(config: RunConfig, checkpoint: Checkpoint | None) -> RunConfig:
    """The configuration with `model.dtype` decided: by the checkpoint of a resumed run, whatever machine it is on now, else by the hardware.

    Ranks decide alone, so those of a new CPU run must be on like machines. Raises UserError when a resumed run is asked for another dtype.
    """
    asked = config.model.dtype
    if checkpoint:
        dtype = from_yaml(checkpoint.path / "config.yaml").model.dtype
        if asked not in ("auto", dtype):
            raise UserError(f"model.dtype={asked}, but {checkpoint.path} was written with {dtype}: leave model.dtype=auto to go on")
    else:
        dtype = str(choose_dtype(asked, choose_platform(config.platform))).removeprefix("torch.")
    return replace(config, model=replace(config.model, dtype=dtype))
