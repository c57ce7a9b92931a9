"""What is said of a finished step: its metrics, completed by the overview and the alarms, in the logs and on the console, and sampled tasks."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from azr_nemo.observe.alarms import Alarms
from azr_nemo.observe.console import Console
from azr_nemo.observe.metrics import MetricsLog
from azr_nemo.observe.overview import overview
from azr_nemo.observe.sink import Sink
from azr_nemo.observe.weights_and_biases import WeightsAndBiases
from azr_nemo.selfplay.rows import Attempt
from azr_nemo.selfplay.samples import sampled, shown
from azr_nemo.settings.schema import RunConfig


class StepReport:
    """Of one run. A run that resumes must have taken later steps back from `log` before: its lines are the alarms' memory."""

    def __init__(self, config: RunConfig, log: MetricsLog, console: Console):
        self.config, self.log, self.console = config, log, console
        self.alarms = Alarms(config.logging.alarms, log.rows())

    def start(self, held_out: Mapping[str, float]) -> None:
        """The line of step 0: what was measured before training."""
        metrics = {**held_out, **overview(held_out)}
        self.log.write(0, metrics)
        self.alarms.recall([{**metrics, "step": 0}])

    def step(self, step: int, metrics: Mapping[str, float], attempts: Sequence[Attempt]) -> None:
        """Raises UserError when a log cannot be written."""
        metrics = {**metrics, **overview(metrics)}
        alarms, raised = self.alarms.judge(step, metrics)
        metrics |= alarms
        self.log.write(step, metrics)
        self.console.step_line(step, metrics)
        for sentence in raised:
            self.console.note(sentence)
        every = self.config.logging.samples_every
        if every and (step - 1) % every == 0:
            for attempt in sampled(attempts, random.Random(f"{self.config.seed}/samples/{step}")):
                self.console.sample(attempt.prompt.role, attempt.prompt.type, shown(attempt), attempt.outcome, attempt.reward)


def open_sinks(config: RunConfig, run_dir: Path, console: Console) -> list[Sink]:
    """Where metrics go beside the run directory. Raises UserError as the sinks do."""
    if not config.logging.wandb:
        return []
    with console.phase("Weights & Biases"):
        sink = WeightsAndBiases(run_dir, config)
    console.note(f"Weights & Biases: {sink.place}")
    return [sink]
