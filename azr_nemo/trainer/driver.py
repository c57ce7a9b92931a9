"""Drives a self-play generator with an engine: what it yields is sampled, timed and shown; what is sampled is sent back."""

import hashlib
from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

from azr_nemo import progress
from azr_nemo.observe.console import Console
from azr_nemo.observe.lanes import Lanes
from azr_nemo.observe.timing import PhaseClock
from azr_nemo.selfplay.exchange import Completion, Completions, Engine, PromptBatch, TrainingBatch

T = TypeVar("T")


class Driver:
    """Engine, clock, lanes and console of a run. tokens: response tokens sampled since it was last set to 0."""

    def __init__(self, engine: Engine, clock: PhaseClock, console: Console, seed: int, lanes: Lanes | None = None):
        """lanes: another driver's, to which this one's spans are added."""
        self.engine, self.clock, self.console, self.seed = engine, clock, console, seed
        self.tokens = 0
        self.lanes = lanes or Lanes(clock.now)

    def drive(self, generator: Generator[PromptBatch, Completions, T], label: str, place: int = 0) -> T:
        """Runs the generator to its end and returns what it returns. Samples depend on the run's seed, the label and the batch's place
        alone, so a step that is repeated after a resume draws the same. place: of the first batch, where a generator goes on after a kill."""
        try:
            batch = next(generator)
            while True:
                answer = self._sample(batch, sampling_seed(self.seed, label, place))
                place += 1
                # Waiting for what generation did not hide, and the step's own work.
                with self.clock.phase("execute"), self.console.phase("execute"):
                    batch = generator.send(answer)
        except StopIteration as stop:
            return stop.value

    def update(self, batch: TrainingBatch, refit: bool = True) -> dict[str, float]:
        """The update and, where asked for, the refit of the rollout engine; its metrics. The refit is a phase of its own, as the engine times it."""
        began = self.lanes.now()
        with self.clock.phase("update"), self.console.phase("update") as phase, progress.heard_by(phase):
            metrics = self.engine.update(batch) if refit else self.engine.update(batch, refit=False)
        refit_s, ended = metrics.get("refit_s", 0.0), self.lanes.now()
        self.clock.move("update", "refit", refit_s)
        self.lanes.add("update", began, ended - refit_s)
        if refit:
            self.lanes.add("refit", ended - refit_s, ended)
        return metrics

    def refit(self) -> None:
        """Hands the new weights to the samplers, which have nothing else to do then."""
        began = self.lanes.now()
        with self.clock.phase("refit"), self.console.phase("refit"):
            self.engine.refit()
        self.lanes.add("refit", began, self.lanes.now())

    def _sample(self, batch: PromptBatch, seed: int) -> Completions:
        total = sum(prompt.samples for prompt in batch.prompts)
        lanes = [lane for lane, count in batch.lanes for _ in range(count)]
        began = self.lanes.now()
        latest = dict.fromkeys(lanes, began)
        with self.clock.phase(batch.phase), self.console.phase(batch.phase, total) as phase, progress.heard_by(phase):

            def arrived(index: int, sample: int, completion: Completion) -> None:
                with self.clock.phase("execute", peaks=False):  # reading an answer and handing it to the executor
                    phase.advance(1)
                    self.tokens += len(completion.response_ids)
                    latest[lanes[index]] = self.lanes.now()
                    if batch.on_completion:
                        batch.on_completion(index, sample, completion)

            completions = self.engine.generate(replace(batch, on_completion=arrived), seed)
        for lane, ended in latest.items():
            self.lanes.add(lane, began, ended)
        return completions


def sampling_seed(seed: int, label: str, place: int) -> int:
    """A 63-bit seed from the run's seed and the place in the run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{label}/{place}".encode()).digest()[:8]) >> 1
