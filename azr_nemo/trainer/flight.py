"""Steps in flight (`placement=split`): while a step is learnt from, a later one is sampled, by weights of `selfplay.staleness` updates before.

Who has which weights does not depend on who is faster: step n is drawn by those of update n - 1 - staleness, all of it, and new ones are handed over
between two rounds, in each of which one step is learnt from and one is sampled. So a resumed run goes on as if it had not been stopped: a checkpoint
has the buffer as it was before the steps in flight, and every completion of theirs, with which they are gone through again.
"""

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.selfplay.exchange import Completion, Completions, PromptBatch, StepResult
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.trainer.driver import Driver

T = TypeVar("T")
FILE = "in_flight.json"
Answers = dict[int, list[Completions]]  # by step: what was said to each of its batches


@dataclass(frozen=True)
class Sampled:
    """A step that was sampled. tokens: of its responses. answers: what was said to its batches. before: the buffer's image when it began."""

    result: StepResult
    tokens: int
    answers: list[Completions]
    before: bytes


class Flight:
    """The steps that were sampled and not learnt from yet. driver, ahead: of the run's own thread, and of the one that samples beside it.
    recorded: what a checkpoint has of steps in flight. dropped: completions that were too old to be learnt from and are drawn again."""

    def __init__(self, selfplay: SelfPlay, driver: Driver, ahead: Driver, recorded: Answers):
        self.selfplay, self.driver, self.ahead, self.recorded = selfplay, driver, ahead, recorded
        self.staleness, self.last = selfplay.config.selfplay.staleness, selfplay.config.selfplay.steps
        self.dropped = 0
        self._sampled: dict[int, Sampled] = {}

    def take(self, step: int) -> Sampled:
        """The step that is to be learnt from. It, and those that must be there beside it, are sampled now where they are not yet."""
        for number in range(step, max(step, min(step + self.staleness - 1, self.last)) + 1):
            if number not in self._sampled:
                self._sampled[number] = self._sample(number, self.driver)
        return self._sampled.pop(step)

    def sampling(self, step: int) -> Any:
        """A context in which the step that is `staleness` after this one is sampled, if any is."""
        number = step + self.staleness
        return self._beside(number) if self.staleness and number <= self.last and number not in self._sampled else nullcontext()

    @contextmanager
    def _beside(self, number: int) -> Iterator[None]:
        error: list[BaseException] = []

        def run() -> None:
            try:
                self._sampled[number] = self._sample(number, self.ahead)
            except BaseException as raised:  # for the run's own thread
                error.append(raised)

        thread = threading.Thread(target=run, name="sampling", daemon=True)
        thread.start()
        yield
        with distributed.waiting():
            while thread.is_alive():
                thread.join(0.1)
        if error:
            raise error[0]

    def _sample(self, step: int, driver: Driver) -> Sampled:
        before = self.selfplay.buffer.image() if self.staleness else b""
        replay = self._young_enough(step)
        answers: list[Completions] = []
        result = driver.drive(recording(self.selfplay.step(step), replay, answers), f"step/{step}", len(replay))
        tokens = sum(len(completion.response_ids) for batch in answers for group in batch for completion in group)
        return Sampled(result, tokens, answers if self.staleness else [], before)

    def _young_enough(self, step: int) -> list[Completions]:
        """What was recorded of a step, unless some of it is older than `selfplay.staleness` allows now."""
        replay = self.recorded.pop(step, [])
        drawn = [completion.weight_version for batch in replay for group in batch for completion in group]
        if drawn and min(drawn) < step - 1 - self.staleness:
            self.dropped += len(drawn)
            return []
        return replay

    def state(self, step: int) -> tuple[bytes | None, bytes]:
        """For the checkpoint after `step`: the buffer's image before what is in flight, None where nothing is, and the bytes of its file."""
        if not self._sampled:
            return None, b""
        steps = {number: [[[asdict(c) for c in group] for group in batch] for batch in s.answers] for number, s in self._sampled.items()}
        return self._sampled[step + 1].before, json.dumps(steps).encode()


def recording(
    step: Generator[PromptBatch, Completions, T], replay: list[Completions], answers: list[Completions]
) -> Generator[PromptBatch, Completions, T]:
    """The same step; `replay` is said to its first batches, which nobody is asked for, and all that it was told is added to `answers`."""
    try:
        batch = next(step)
        while True:
            answer = replay[len(answers)] if len(answers) < len(replay) else (yield batch)
            answers.append(answer)
            batch = step.send(answer)
    except StopIteration as stop:
        return stop.value


def read_in_flight(checkpoint: Path) -> Answers:
    """What `Flight.state` has left in a checkpoint. Raises UserError when the file is damaged."""
    path = checkpoint / FILE
    if not path.is_file():
        return {}
    try:
        steps = json.loads(path.read_bytes())
        return {
            int(number): [[[Completion.of(c) for c in group] for group in batch] for batch in answers] for number, answers in steps.items()
        }
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): give resume= the checkpoint before it") from None
