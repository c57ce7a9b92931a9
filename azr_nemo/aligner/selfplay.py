"""What rank 0 alone has: the executor's and the buffer's session, its driver, and the run's logs, which PPOTrainer writes to as its logger."""

from pathlib import Path
from typing import Any

from azr_nemo.config import RunConfig
from azr_nemo.observe.metrics import MetricsLog
from azr_nemo.observe.rollouts import RolloutLog
from azr_nemo.sandbox.metered import MeteredExecutor
from azr_nemo.selfplay.step import StepResult
from azr_nemo.trainer.driving import Driver
from azr_nemo.trainer.reporting import StepReport
from azr_nemo.trainer.rollouts import rollouts
from azr_nemo.trainer.seeding import ask_for_seeds, read_seeds
from azr_nemo.trainer.session import Session


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


class Silent:
    """PPOTrainer's logger on every rank but 0."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None, prefix: str = "") -> None: ...

    def log_table(self, *args: Any, **kwargs: Any) -> None: ...

    def finalize(self) -> None: ...
