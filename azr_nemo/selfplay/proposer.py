"""The proposer's side of a step: which references it is shown, how its answers are read, what it earns."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from azr_nemo.errors import UserError
from azr_nemo.rewards.answer import MALFORMED
from azr_nemo.rewards.intrinsic.combine import combine, values
from azr_nemo.rewards.intrinsic.registry import components
from azr_nemo.rewards.learnability import learnability
from azr_nemo.selfplay.buffer import StoredTask, TaskBuffer
from azr_nemo.selfplay.composite_schedule import Given, give, refuse_idle
from azr_nemo.selfplay.exchange import Attempt, Completion, Prompt, SampleGroup, settled
from azr_nemo.selfplay.validation import Validator, no_abduction
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.composite import own_part
from azr_nemo.tasks.program import is_held_out
from azr_nemo.tasks.program_shape import shape
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal, Role, Task, TaskType, Verdict
from azr_nemo.tasks.wishes import wishes


class BufferHistory:
    """Counts of the inputs and outputs of the buffer's tasks, counted when first asked for: whoever needs them before the buffer changes asks
    before it does (azr_nemo.rewards.intrinsic.component.History)."""

    def __init__(self, buffer: TaskBuffer):
        self._buffer = buffer
        self._counts: dict[tuple[TaskType, str], Counter[str]] = {}

    def inputs(self, type: TaskType) -> Counter[str]:
        return self._count(type, "inputs")

    def outputs(self, type: TaskType) -> Counter[str]:
        return self._count(type, "outputs")

    def shapes(self, type: TaskType) -> Counter[str]:
        if (type, "shapes") not in self._counts:
            self._counts[type, "shapes"] = self._buffer.shapes(type)
        return self._counts[type, "shapes"]

    def _count(self, type: TaskType, what: str) -> Counter[str]:
        if (type, what) not in self._counts:
            self._counts[type, what] = Counter(value for stored in self._buffer.tasks(type) for value in getattr(stored.task, what))
        return self._counts[type, what]


CROWDED = "crowded_shape"  # the refusal of a program that differs from `selfplay.shape_cap` others in names and constants alone
HELD_OUT = "held_out"  # the refusal of a program that held-out evaluation may ask about


@dataclass
class Proposed:
    """One proposal on its way through the step."""

    row: SampleGroup
    references: list[StoredTask]
    given: Given = field(default_factory=Given)  # the functions that it must build on
    lines: int | None = None  # the body length that it was asked for
    task: Task | None = None
    refusal: str = ""  # why there is no task, or `duplicate`
    no_abduction: str = ""  # why its program is no abduction task, of the reasons that `selfplay.refuse_...` ask about
    novel: bool = False  # its program was not known before
    estimates: SampleGroup | None = None
    intrinsic: dict[str, float] = field(default_factory=dict)  # what it earns beside learnability, by name
    verdicts: tuple[Verdict, ...] = ()  # of the solver's samples; their mean score is the solve rate
    task_id: int | None = None  # in the buffer, once it is there

    @property
    def type(self) -> TaskType:
        return self.row.prompt.type

    @property
    def known_task(self) -> Task:
        """The task that it became."""
        assert self.task is not None
        return self.task

    @property
    def lineage(self) -> tuple[int, ...]:
        """Ids of all tasks that its proposer was shown, references first."""
        return tuple(dict.fromkeys(stored.id for stored in (*self.references, *self.given.tasks)))

    @property
    def earns(self) -> bool:
        """It earns something and is trained on. A held-out program is not: it did no wrong, and must not be learnt."""
        return self.refusal != HELD_OUT

    @property
    def fresh(self) -> bool:
        """Valid and new: it is estimated and enters the buffer."""
        return self.task is not None and not self.refusal

    @property
    def solve_rate(self) -> float:
        return sum(v.score for v in self.verdicts) / len(self.verdicts)


class Proposer:
    """Draws references from the buffer, writes propose prompts, validates what comes back.

    fits: whether a prompt is within `rollout.max_prompt_tokens`.
    """

    def __init__(self, buffer: TaskBuffer, validator: Validator, options: PromptOptions, config: RunConfig, fits: Callable[[str], bool]):
        self.buffer, self.validator, self.options, self.config, self.fits = buffer, validator, options, config, fits
        self.intrinsic = components(config.reward)

    def rows(self, rng: random.Random, step: int) -> list[Proposed]:
        """`selfplay.proposals` proposals per task type, their references drawn from the buffer as it stands, `propose_samples` of them alike."""
        settings = self.config.selfplay
        types = [TaskType(name) for name in settings.task_types]
        return [row for kind in types for _ in range(settings.proposed // settings.propose_samples) for row in self.alike(kind, rng, step)]

    def alike(self, kind: TaskType, rng: random.Random, step: int) -> list[Proposed]:
        """`selfplay.propose_samples` proposals that answer the same prompt."""
        first = self.row(kind, rng, step)
        return [first, *(self.ask_again(first) for _ in range(self.config.selfplay.propose_samples - 1))]

    @staticmethod
    def ask_again(proposed: Proposed) -> Proposed:
        """A proposal that answers the same prompt."""
        return Proposed(SampleGroup(proposed.row.prompt, proposed.row.read), proposed.references, proposed.given, proposed.lines)

    def row(self, kind: TaskType, rng: random.Random, step: int = 0) -> Proposed:
        """One proposal of this type, its references and functions drawn from the buffer as it stands; seeding, step 0, asks for these too."""
        references, options = self._references(kind, rng)
        given = give(self.config.selfplay.composite, self.buffer, kind, step, rng)
        if given.texts and self.fits(KINDS[kind].propose_prompt([], replace(options, functions=given.texts)).full):
            options = replace(options, functions=given.texts)
        else:
            given = Given()
        if kind is not TaskType.INDUCTION:
            options = replace(options, wishes=wishes(rng, self.config.selfplay.wishes))
        return self.proposed(kind, self._prompt(kind, references, options), references, given, options.lines)

    def proposed(self, kind: TaskType, text: PromptText, references: list[StoredTask], given: Given, lines: int | None) -> Proposed:
        """The proposal that answers this prompt: how it is read depends on what the prompt shows and asks for."""
        options, shown = replace(self.options, functions=given.texts, lines=lines), [stored.task for stored in references]
        prompt = Prompt(text, Role.PROPOSE, kind, 1, self.config.rollout.max_propose_tokens, self.config.rollout.temperature)

        def read(completion: Completion) -> Future:
            if not completion.finished:
                return settled(Refusal("truncated", "the response reached the length limit"))
            proposal = KINDS[kind].parse_proposal(text.prefill + completion.text, shown, options)
            return settled(proposal) if isinstance(proposal, Refusal) else self.validator.submit(proposal)

        return Proposed(SampleGroup(prompt, read), references, given, lines)

    def _references(self, kind: TaskType, rng: random.Random) -> tuple[list[StoredTask], PromptOptions]:
        """Deduction and abduction see several tasks of their own type; induction describes one program of either."""
        settings, count = self.config.selfplay, self.config.selfplay.references
        if kind is TaskType.INDUCTION:
            kind, count = rng.choice([TaskType.DEDUCTION, TaskType.ABDUCTION]), 1
        if settings.reference_sampling != "depth":
            return self.buffer.sample(kind, count, rng, strategy=settings.reference_sampling), self.options
        # Every length is as likely to be asked for, up to one line more than any task has: most valid programs are short, and a buffer that is
        # full of one-liners would ask for nothing else. Where tasks of that length are too few, others are shown as well.
        longest = max(self.buffer.lengths(kind), default=1) + (count > 1)
        lines = rng.randint(1, min(longest, settings.longest_asked))
        same = self.buffer.sample(kind, count, rng, lines=lines)
        same += self.buffer.sample(kind, count - len(same), rng, exclude=[stored.id for stored in same])
        return same, replace(self.options, lines=lines) if count > 1 else self.options

    def _prompt(self, kind: TaskType, references: list[StoredTask], options: PromptOptions) -> PromptText:
        """The longest prompt that fits: references are dropped from the end until it does."""
        while True:
            text = KINDS[kind].propose_prompt([stored.task for stored in references], options)
            if self.fits(text.full):
                return text
            if len(references) <= (1 if kind is TaskType.INDUCTION else 0):
                raise UserError(
                    f"rollout.max_prompt_tokens={self.config.rollout.max_prompt_tokens} is too small for the {kind} proposer's "
                    "prompt even without references: raise it, or choose selfplay.prompt_style=completion or code"
                )
            references.pop()

    def settle(self, proposals: list[Proposed]) -> None:
        """Collects the validator's results and marks what is already known: in the buffer, or earlier in this very batch."""
        keys, programs, cap = set(), set(), self.config.selfplay.shape_cap
        shapes = {kind: self.buffer.shapes(kind) for kind in {proposed.type for proposed in proposals}} if cap else {}
        results = [result for proposed in proposals for result in proposed.row.outcomes()]
        results = refuse_idle(self.validator, [proposed.given for proposed in proposals], results)
        idle = no_abduction(self.validator, results, self.config.selfplay.refused_abduction)
        for proposed, result, reason in zip(proposals, results, idle, strict=True):
            if isinstance(result, Refusal):
                proposed.refusal = result.reason
                continue
            proposed.no_abduction = reason
            if reason and result.type is TaskType.ABDUCTION:
                proposed.refusal = reason
                continue
            if self.config.eval.items and is_held_out(result.program):
                proposed.refusal = HELD_OUT
                continue
            proposed.task = result
            key, program = self.buffer.key(result), self.buffer.program_key(result)
            proposed.novel = not (program in programs or self.buffer.knows_program(result.program))
            if key in keys or self.buffer.contains(result):
                proposed.refusal = "duplicate"
            elif cap and shapes[result.type][shape(result.program)] >= cap:
                proposed.refusal = CROWDED
            elif not self.fits(KINDS[result.type].solve_prompt(result, self.options).full):
                proposed.task, proposed.refusal = None, "prompt_too_long"
            if cap and proposed.fresh:
                shapes[result.type][shape(result.program)] += 1
            keys.add(key)
            programs.add(program)

    def rewarded(self, proposals: list[Proposed], step: int) -> list[Attempt]:
        """What each settled and estimated proposal that `earns` earns: learnability, and the intrinsic rewards that are on, when it is valid and
        new, the configured penalties otherwise. Then the new tasks enter the buffer, as those of this step."""
        for proposed in proposals:
            if proposed.estimates:
                proposed.verdicts = tuple(proposed.estimates.outcomes())
        history = BufferHistory(self.buffer)
        earning = [proposed for proposed in proposals if proposed.earns]
        attempts = [self._attempt(proposed, history) for proposed in earning]
        self._store([proposed for proposed in proposals if proposed.fresh], step)
        for proposed, attempt in zip(earning, attempts, strict=True):
            attempt.task_id = proposed.task_id
        return attempts

    def _store(self, fresh: list[Proposed], step: int) -> None:
        """Every valid new task that `selfplay.valid_program_filter` lets through enters the buffer, with the references it came from."""
        with self.buffer.transaction():
            for proposed in fresh:
                if not self._kept(proposed.solve_rate):
                    continue
                proposed.task_id = self.buffer.add(proposed.known_task, step, references=proposed.lineage)
                if proposed.task_id is not None:
                    self.buffer.record(proposed.task_id, sum(v.score == 1 for v in proposed.verdicts), len(proposed.verdicts))

    def _kept(self, solve_rate: float) -> bool:
        match self.config.selfplay.valid_program_filter:
            case "non_one":
                return solve_rate < 1
            case "non_extremes":
                return 0 < solve_rate < 1
        return True

    def _attempt(self, proposed: Proposed, history: BufferHistory) -> Attempt:
        reward = self.config.reward
        if proposed.fresh:
            earned, outcome = learnability(proposed.solve_rate, reward), f"solve_rate={proposed.solve_rate:.2f}"
            if self.intrinsic and 0 < proposed.solve_rate < 1:
                assert proposed.task is not None
                shown = [stored.task for stored in proposed.references]
                own = replace(proposed.task, program=own_part(proposed.given.texts, proposed.task.program))
                proposed.intrinsic = values(self.intrinsic, own, shown, history)
                earned = combine(earned, list(proposed.intrinsic.values()), reward.intrinsic_combine)
        elif proposed.refusal in ("duplicate", CROWDED):
            earned, outcome = reward.duplicate, proposed.refusal
        else:
            earned = reward.malformed if proposed.refusal in MALFORMED else reward.invalid
            outcome = proposed.refusal
        return Attempt(proposed.row.prompt, proposed.row.completions[0], earned, outcome, proposed.task, proposed.lineage, phase="propose")
