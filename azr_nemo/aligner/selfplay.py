"""What rank 0 alone has: the executor's and the buffer's session, its driver, and the run's logs, which PPOTrainer writes to as its logger."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azr_nemo.observe.console import Console
from azr_nemo.observe.metrics import MetricsLog
from azr_nemo.observe.rollout_log import RolloutLog
from azr_nemo.observe.timing import MemoryMeter, PhaseClock
from azr_nemo.runs.checkpoints import Checkpoint
from azr_nemo.sandbox.metered import MeteredExecutor
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import StepResult
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.driver import Driver
from azr_nemo.trainer.reporting import StepReport, open_sinks, rollouts
from azr_nemo.trainer.session import Session, ask_for_seeds, buffer_path, make_session, read_seeds
from azr_nemo.trainer.stopping import StopRequest

if TYPE_CHECKING:
    from azr_nemo.aligner.leader import LeadingEngine  # imports NeMo


class SelfPlayRun:
    """Drives the step's generators with the run's engine; PPOTrainer's `logger` on rank 0. `executor` is the session's."""

    def __init__(
        self, config: RunConfig, session: Session, driver: Driver, metrics: MetricsLog, log: RolloutLog, executor: MeteredExecutor
    ) -> None:
        self.config, self.session, self.driver, self.executor = config, session, driver, executor
        self.report, self.rollouts = StepReport(config, metrics, driver.console), log
        self._result: StepResult | None = None
        self._line: tuple[int, dict[str, float]] | None = None  # of the step in hand, until all of its numbers are there

    def step(self, number: int) -> StepResult:
        """One self-play step, up to the rows to train on."""
        self.flush()
        self.driver.tokens = 0
        self._result = self.driver.drive(self.session.selfplay.step(number), f"step/{number}")
        return self._result

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out tasks and benchmarks."""
        metrics: dict[str, float] = {}
        for place, evaluation in enumerate(self.session.evaluations):
            label = f"evaluate/{step}/{place}" if place else f"evaluate/{step}"
            metrics |= self.driver.drive(evaluation.evaluate(), label)
        return metrics

    def seed(self) -> None:
        """The tasks of `data.seed_files`, then what the model proposes until there are enough; held-out accuracy before training."""
        console, buffer = self.driver.console, self.session.selfplay.buffer
        if files := [Path(name) for name in self.config.data.seed_files]:
            hold_out = self.config.eval.items > 0
            for sentence in read_seeds(self.config, files, buffer, self.executor, console, hold_out).sentences():
                console.note(sentence)
        ask_for_seeds(self.session.proposer, self.driver)
        self.report.start(self.evaluate(0))
        self.driver.clock.lap()
        self.executor.lap()

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None, prefix: str = "") -> None:
        """PPOTrainer's logger: what it reports of a step becomes the step's one line in metrics.jsonl, under the names of docs/metrics.md."""
        assert step is not None
        if prefix == "val_rollouts/":  # counted one further, and told of the line before
            self._collect(step, metrics)
        elif prefix == "train_rollouts/":
            self._collect(step + 1, {name: value for name, value in metrics.items() if "/" in name})
            self._collect(step + 1, {f"train/{name}": metrics[name] for name in ("advantages_mean", "advantages_rms")})
        elif prefix == "train_optim/":
            self._collect(step + 1, {f"train/{name}": value for name, value in metrics.items() if name != "optim_step"})
        elif prefix == "timers/":
            times = self.driver.clock.lap()
            generating = sum(times.get(f"time/{phase}_s", 0.0) for phase in ("propose", "estimate", "solve"))
            speed = self.driver.tokens / max(generating, 1e-9)
            self._collect(step + 1, times | self.executor.lap() | {"throughput/generated_tokens_per_s": speed})

    def log_table(self, *args: Any, **kwargs: Any) -> None:
        """PPOTrainer's table of one rollout a step; the run's rollouts/ has all of them."""

    def finalize(self) -> None:
        self.settle()

    def settle(self) -> None:
        """Until the logs are on disk. Before a checkpoint: a resumed run can drop what they tell of later steps, not make up for what is missing."""
        self.flush()
        self.rollouts.flush()

    def _collect(self, step: int, metrics: dict[str, Any]) -> None:
        if self._line is None or self._line[0] != step:
            self.flush()
            self._line = (step, {})
        self._line[1].update({name: float(value) for name, value in metrics.items() if isinstance(value, int | float)})

    def flush(self) -> None:
        """Writes the step's line and its rollouts, once."""
        if self._line is None or self._result is None:
            return
        (step, metrics), self._line = self._line, None
        result, self._result = self._result, None
        self.report.step(step, metrics, result.attempts)
        self.rollouts.write(step, rollouts(result))


@dataclass(frozen=True)
class Leading:
    """What rank 0 has before the model is there. stack: closes what the run opens."""

    stack: ExitStack
    run_dir: Path
    console: Console
    stop: StopRequest

    def open(self, config: RunConfig, checkpoint: Checkpoint | None, executor: MeteredExecutor, engine: "LeadingEngine") -> SelfPlayRun:
        """Buffer, logs and session of the run, as the checkpoint left them."""
        if checkpoint:
            buffer = TaskBuffer.restore(checkpoint.path / "buffer.sqlite", buffer_path(self.run_dir), config.selfplay.buffer_capacity)
        else:
            buffer = TaskBuffer(buffer_path(self.run_dir), config.selfplay.buffer_capacity)
            buffer.remove_after(0)
        self.stack.callback(buffer.close)
        metrics = MetricsLog(self.run_dir, config.logging.tensorboard, open_sinks(config, self.run_dir, self.console))
        self.stack.callback(metrics.close)
        log = self.stack.enter_context(RolloutLog(self.run_dir, config.logging.rollouts, config.seed))
        for written in (metrics, log):
            written.rewind(checkpoint.step if checkpoint else -1)
        driver = Driver(engine, PhaseClock(memory=MemoryMeter().lap), self.console, config.seed)  # type: ignore[arg-type]
        session = make_session(config, engine, executor, buffer, self.console)  # type: ignore[arg-type]
        return SelfPlayRun(config, session, driver, metrics, log, executor)


class Silent:
    """PPOTrainer's logger on every rank but 0."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None, prefix: str = "") -> None: ...

    def log_table(self, *args: Any, **kwargs: Any) -> None: ...

    def finalize(self) -> None: ...
