"""What is said of a finished step: its metrics, completed by the overview and the alarms, in the logs and on the console, and sampled tasks."""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from azr_nemo.observe.alarms import Alarms
from azr_nemo.observe.console import Console
from azr_nemo.observe.metrics import MetricsLog, Sink
from azr_nemo.observe.mlflow import MLflow
from azr_nemo.observe.overview import Reading, best, fell, overview, reading
from azr_nemo.observe.rollout_log import Rollout
from azr_nemo.observe.weights_and_biases import WeightsAndBiases
from azr_nemo.selfplay.exchange import Attempt, StepResult
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.task import Role, TaskType

GENERATING = ("propose", "estimate", "solve", "sample", "evaluate")  # the phases in which responses are drawn


def sampled(attempts: Sequence[Attempt], rng: random.Random) -> list[Attempt]:
    """One attempt of each task type that has any, of either role: roles are drawn first, so the many answers do not crowd the proposals out."""
    chosen = []
    for kind in TaskType:
        by_role = {role: [a for a in attempts if a.prompt.type is kind and a.prompt.role is role] for role in Role}
        if roles := [role for role, found in by_role.items() if found]:
            chosen.append(rng.choice(by_role[rng.choice(roles)]))
    return chosen


def shown(attempt: Attempt) -> str:
    """What the model wrote; an answer after the program, inputs and outputs that it was asked about."""
    task = attempt.task
    if attempt.prompt.role is Role.PROPOSE or task is None:
        return attempt.completion.text
    pairs = [f"f({given}) = {output}" for given, output in zip(task.inputs, task.outputs, strict=True)]
    return "\n".join([task.program, *pairs, "answer:", attempt.completion.text.strip("\n")])


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
        alarms, raised = self.alarms.check(step, metrics)
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
    sinks: list[Sink] = []
    if config.logging.wandb:
        with console.phase("Weights & Biases"):
            sinks.append(wandb := WeightsAndBiases(run_dir, config))
        console.note(f"Weights & Biases: {wandb.place}")
    if config.logging.mlflow:
        with console.phase("MLflow"):
            sinks.append(mlflow := MLflow(run_dir, config))
        console.note(f"MLflow: run {mlflow.run_id} of the experiment {config.logging.mlflow_experiment}")
    return sinks


def step_metrics(
    result: StepResult, trained: Mapping[str, float], held_out: Mapping[str, float], measured: Mapping[str, float], sampled: int
) -> dict[str, float]:
    """All that a step measured. trained: of its update. measured: times of its phases and the executor's throughput. sampled: response tokens, of
    all phases."""
    generating = sum(measured.get(f"time/{phase}_s", 0.0) for phase in GENERATING)
    return {
        **result.metrics,
        **trained,
        **held_out,
        **measured,
        "throughput/generated_tokens_per_s": sampled / max(generating, 1e-9),
        "throughput/trained_tokens_per_s": float(result.batch.mask.sum()) / max(measured.get("time/update_s", 0.0), 1e-9),
    }


def staleness(result: StepResult, updates: int) -> dict[str, float]:
    """How many updates old the rows of the batch are for weights that have had so many, each as old as its oldest token; and, where any has, the
    share of the step's answers that have tokens of several versions."""
    ages = (updates - result.batch.versions).float()
    mixed = sum(bool(attempt.completion.newer) for attempt in result.rollouts) / max(1, len(result.rollouts))
    return {"staleness/mean": float(ages.mean()), "staleness/max": float(ages.max()), **({"staleness/mixed": mixed} if mixed else {})}


def rollouts(result: StepResult) -> list[Rollout]:
    """Every completion of the step, those that are not trained on too. To be called once rewards have become advantages."""
    return [
        Rollout(
            phase=attempt.phase,
            role=attempt.prompt.role,
            type=attempt.prompt.type,
            task=attempt.task_id,
            references=attempt.references,
            prompt=attempt.prompt.text.full,
            completion=attempt.completion.text,
            outcome=attempt.outcome,
            reward=attempt.reward,
            advantage=attempt.advantage,
            response_tokens=len(attempt.completion.response_ids),
        )
        for attempt in result.rollouts
    ]


class Guard:
    """Takes the metrics of evaluated steps in order. stop_if_worse: how far below its best accuracy may fall, 0 for no limit."""

    def __init__(self, stop_if_worse: float = 0.0):
        self.stop_if_worse = stop_if_worse
        self.readings: list[Reading] = []

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes what a resumed run had measured before: rows of metrics.jsonl."""
        for row in rows:
            self._take(int(row["step"]), row)

    def stop_reason(self, step: int, metrics: Mapping[str, float]) -> str:
        """Why the run should stop after this evaluation, in a sentence; empty when it should not."""
        now = self._take(step, metrics)
        if now is None or len(self.readings) < 2:
            return ""
        highest = best(self.readings[:-1])
        if not self.stop_if_worse or not fell(highest, now) or highest.accuracy - now.accuracy <= self.stop_if_worse:
            return ""
        return (
            f"held-out accuracy fell from {highest.accuracy:.2f} at step {highest.step} to {now.accuracy:.2f}, more than "
            f"eval.stop_if_worse={self.stop_if_worse:g}: stopped; the checkpoint of step {highest.step} was the best"
        )

    def _take(self, step: int, metrics: Mapping[str, Any]) -> Reading | None:
        now = reading(step, metrics)
        if now is not None:
            self.readings.append(now)
        return now
