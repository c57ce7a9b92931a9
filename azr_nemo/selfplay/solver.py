"""The solver's side of a step: which tasks it is given, how its answers are graded, what they earn."""

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeAlias

from azr_nemo.rewards.answer import solver_reward
from azr_nemo.selfplay.buffer import StoredTask, TaskBuffer
from azr_nemo.selfplay.drawing import MIXES, Candidate, retired
from azr_nemo.selfplay.exchange import Attempt, Completion, Prompt, SampleGroup, settled
from azr_nemo.selfplay.validation import Verifier
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.other_inputs import is_echo
from azr_nemo.tasks.task import PromptOptions, Refusal, Role, Task, TaskType, Verdict

Solved: TypeAlias = Sequence[tuple[SampleGroup, StoredTask]]
ECHO = Verdict(0.0, "echo")


class Solver:
    """Draws tasks, writes solve prompts, has the answers verified. fits: whether a prompt is within `rollout.max_prompt_tokens`.
    encode_response: token ids of a response, its end included."""

    def __init__(
        self,
        buffer: TaskBuffer,
        verifier: Verifier,
        options: PromptOptions,
        config: RunConfig,
        fits: Callable[[str], bool],
        encode_response: Callable[[str], list[int]],
    ):
        self.buffer, self.verifier, self.options, self.config = buffer, verifier, options, config
        self.fits, self.encode_response = fits, encode_response

    def row(self, task: Task, samples: int = 1, temperature: float | None = None, echo: str | None = None, wording: int = 0) -> SampleGroup:
        """The row that has the model solve `task`, `samples` times; its outcomes are verdicts. echo: in the place of `reward.echo`. wording: of the
        prompt style's, which one."""
        text = KINDS[task.type].solve_prompt(task, replace(self.options, wording=wording))
        rollout = self.config.rollout
        temperature = rollout.temperature if temperature is None else temperature
        echo = echo or self.config.reward.echo
        prompt = Prompt(text, Role.SOLVE, task.type, samples, rollout.max_solve_tokens, temperature)
        known: dict[str, Future] = {}  # answers that several samples give are graded once

        def read(completion: Completion) -> Future:
            if not completion.finished:
                return settled(Verdict(0.0, "truncated"))
            answer = KINDS[task.type].parse_answer(text.prefill + completion.text, self.options)
            if isinstance(answer, Refusal):
                return settled(Verdict(0.0, answer.reason))
            if echo != "right" and is_echo(task, answer):
                return settled(ECHO)
            if answer not in known:
                known[answer] = self.verifier.submit(task, answer, partial=self.config.reward.induction == "fraction")
            return known[answer]

        return SampleGroup(prompt, read)

    def draw(self, step: int, rng: random.Random, solved: Solved = ()) -> list[StoredTask]:
        """Tasks for `selfplay.batch_size` answers per task type, by `selfplay.solve_from`; fewer while the buffer holds fewer. solved: what was
        answered already, of which whatever has answers that earned differently counts: so many tasks fewer, and none of these again."""
        settings, drawn = self.config.selfplay, []
        asked = {stored.id for _, stored in solved}
        for kind in map(TaskType, settings.task_types):
            taught = sum(stored.task.type is kind and self._earned_differently(row) for row, stored in solved)
            drawn += self._draw(kind, step, rng, settings.batch_size // settings.solve_samples - taught, asked)
        return drawn

    def _draw(self, kind: TaskType, step: int, rng: random.Random, size: int, asked: set[int]) -> list[StoredTask]:
        settings = self.config.selfplay
        mix = MIXES[settings.solve_from]
        steps = mix.steps(step, settings.solve_window)
        first = [stored for created in steps for stored in self.buffer.recent(kind, created) if self._fits(stored.task)]
        first = [s for s in first if s.id not in asked and self._teaches(Candidate(s.id, s.step, s.lines, s.attempts, s.solved))]
        chosen = rng.sample(first, min(int(size * mix.share), len(first)))
        taken = {*asked, *(stored.id for stored in chosen)}
        # A few more than are missing, for those whose prompt is too long.
        others = self.buffer.sample(kind, 2 * size, rng, strategy=mix.others, exclude=taken, only=self._teaches)
        if len(others) < size - len(chosen) and not asked:  # what has nothing left to teach comes last
            others += self.buffer.sample(kind, 2 * size, rng, strategy=mix.others, exclude={*taken, *(s.id for s in others)})
        return chosen + [s for s in others if self._fits(s.task)][: size - len(chosen)]

    def _earned_differently(self, row: SampleGroup) -> bool:
        return len({solver_reward(verdict, self.config.reward) for verdict in row.outcomes() if self.is_trained(verdict.reason)}) > 1

    def draw_one(self, kind: TaskType, since_step: int, rng: random.Random) -> StoredTask | None:
        """One task where there are no batches, by the weights of `selfplay.solve_from`: of this step or later, else of any, first of those that teach.
        None while the buffer has none of this type."""
        others = MIXES[self.config.selfplay.solve_from].others
        for only, since in ((self._teaches, since_step), (self._teaches, None), (None, None)):
            for stored in self.buffer.sample(kind, 1, rng, others, since_step=since, only=only):
                return stored
        return None

    def _teaches(self, task: Candidate) -> bool:
        settings = self.config.selfplay
        return not retired(task, settings.retire_easy, settings.retire_hard, settings.retire_after)

    def wording(self, rng: random.Random) -> int:
        """One of `selfplay.wordings`, drawn evenly."""
        count = self.config.selfplay.wordings
        return rng.randrange(count) if count > 1 else 0

    def _fits(self, task: Task) -> bool:
        wordings = (replace(self.options, wording=wording) for wording in range(self.config.selfplay.wordings))
        return all(self.fits(KINDS[task.type].solve_prompt(task, options).full) for options in wordings)

    def attempts(self, row: SampleGroup, task: Task, task_id: int | None = None, phase: str = "solve") -> list[Attempt]:
        """One attempt per sample of the row, with its reward."""
        return [
            Attempt(
                row.prompt,
                row.completions[k],
                solver_reward(verdict, self.config.reward),
                verdict.reason,
                task,
                phase=phase,
                task_id=task_id,
            )
            for k, verdict in enumerate(row.outcomes())
        ]

    def trained(self, attempts: list[Attempt]) -> list[Attempt]:
        """Those that an update learns from: without echoes where `reward.echo` leaves them out, unless nothing else is there."""
        return [attempt for attempt in attempts if self.is_trained(attempt.outcome)] or attempts

    def is_trained(self, outcome: str) -> bool:
        """Whether an update learns from an answer of this outcome."""
        return outcome != ECHO.reason or self.config.reward.echo != "left_out"

    def record(self, solved: Solved) -> None:
        """Counts in the buffer how often each task was tried, and solved."""
        with self.buffer.transaction():
            for row, stored in solved:
                verdicts = row.outcomes()
                self.buffer.record(stored.id, sum(v.score == 1 for v in verdicts), len(verdicts))

    def known(self, row: SampleGroup, stored: StoredTask) -> Attempt | None:
        """The task's known answer as one more attempt, if none of the row's was right: the output that the executor gave, the input or the
        program that was proposed. Off-policy guidance as in LUFFY (arXiv 2504.14945), from the executor in the place of a stronger model. None
        too for one of more than `rollout.max_solve_tokens`, that the prompt style cannot say, or that is an echo where these are not right."""
        if any(verdict.score == 1 for verdict in row.outcomes()):
            return None
        try:
            kind = KINDS[stored.task.type]
            answer = kind.known_answer(stored.task)
            text = kind.answer_text(answer, self.options)
        except ValueError:  # the prompt style cannot say it
            return None
        if self.config.reward.echo != "right" and is_echo(stored.task, answer):
            return None
        ids = tuple(self.encode_response(text))
        if row.prompt.text.stop:
            ids = ids[:-1]  # its stop string ends it
        if len(ids) > self.config.rollout.max_solve_tokens:
            return None
        first = row.completions[0]
        completion = Completion(text, first.prompt_ids, ids, (math.nan,) * len(ids), finished=True, weight_version=first.weight_version)
        reward = solver_reward(Verdict(1.0, "right"), self.config.reward)
        return Attempt(row.prompt, completion, reward, "known", stored.task, task_id=stored.id)
