"""What both roles are asked and what their answers earn, for whoever samples elsewhere: chat messages out, texts in, rewards back.

The `Proposer` and the `Solver` of a run do it, under a run's settings, so that a reward here is the reward there. Everything is in this process, but for
the programs, which run in the jail.
"""

import atexit
import random
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from azr_nemo.errors import UserError
from azr_nemo.rewards.answer import solver_reward
from azr_nemo.rewards.intrinsic.combine import COMBINE
from azr_nemo.rewards.intrinsic.registry import components
from azr_nemo.sandbox.configured import limits, make_executor
from azr_nemo.sandbox.executor import Executor
from azr_nemo.selfplay.buffer import StoredTask, TaskBuffer
from azr_nemo.selfplay.drawing import MIXES, WEIGHTS
from azr_nemo.selfplay.exchange import Completion, SampleGroup
from azr_nemo.selfplay.options import options_of
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.selfplay.seed_files import load_seeds
from azr_nemo.selfplay.self_seeding import add_seeds, zero_tasks
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.validation import Validator, Verifier
from azr_nemo.settings.compose import compose
from azr_nemo.settings.field import Registered
from azr_nemo.settings.learning import AdvantageConfig, OptimConfig, SelfPlayConfig
from azr_nemo.settings.machine import RolloutConfig
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.marked import template
from azr_nemo.tasks.styles import STYLES
from azr_nemo.tasks.styles.chat import SYSTEM
from azr_nemo.tasks.task import PromptText, Task, TaskType, Verdict

Key = TypeVar("Key")
Kept = TypeVar("Kept")

STEP = 1  # of all new tasks: an environment knows no steps
REMEMBERED = 4096  # prompts that may be asked for again
BETWEEN = template("\n\n")  # the two messages of a prompt
FRAME = ("", BETWEEN, "")
# What an environment has of the plug-ins. Estimators and losses are the trainer's, and ours need torch: only the defaults' names are known.
REGISTERED: Registered = {
    "advantage estimators": (AdvantageConfig().name,),
    "policy losses": (OptimConfig().loss,),
    "aggregations": (OptimConfig().aggregation,),
    "combinations": COMBINE,
    "mixes": MIXES,
    "prompt styles": STYLES,
    "task types": KINDS,
    "rollout engines": (RolloutConfig().name,),
    "schedules": (SelfPlayConfig().schedule,),
    "samplings of references": ("uniform", *WEIGHTS, "depth"),
}


@dataclass(frozen=True)
class Reply:
    """What a model answered. finished: it ended by itself, and was not cut at a limit."""

    text: str
    finished: bool = True


@dataclass(frozen=True)
class Graded:
    """score: how right, in [0, 1]; reason: as of `Verdict`; reward: what the settings give for it."""

    score: float
    reason: str
    reward: float


@dataclass(frozen=True)
class Messages:
    """A prompt as a chat model is asked."""

    system: str
    user: str


def settings(words: Sequence[str]) -> RunConfig:
    """A run's settings from `KEY=VALUE` words, without a recipe; prompts are in the style chat_thoughts unless told. Raises UserError."""
    config = compose(["selfplay.prompt_style=chat_thoughts", *words], REGISTERED, default_recipe=False)
    if not config.selfplay.prompt_style.startswith("chat"):
        raise UserError(
            f"selfplay.prompt_style={config.selfplay.prompt_style}: an environment asks through a chat template; choose chat or chat_thoughts"
        )
    components(config.reward)
    return config


class Referee:
    """The two roles over one buffer. One process writes the buffer; any of its threads may ask.

    close() ends the executor that `open` started.
    """

    def __init__(self, config: RunConfig, executor: Executor, buffer: TaskBuffer):
        self.folder: tempfile.TemporaryDirectory[str] | None = None  # of a buffer that ends with the process
        self.config, self.executor, self.buffer = config, executor, buffer
        options, bounds = options_of(config.selfplay, FRAME), limits(config.executor)
        verifier = Verifier(executor, bounds, tuple(config.selfplay.imports))
        self._solver = Solver(buffer, verifier, options, config, lambda text: True, lambda text: [])
        self._proposer = Proposer(buffer, Validator(executor, bounds), options, config, lambda text: True)
        self._asked: dict[tuple[TaskType, int], Proposed] = {}
        self._drawn: dict[tuple[TaskType, int], StoredTask] = {}
        self._lock = threading.Lock()

    def seed(self) -> list[str]:
        """The identity function and the tasks of `data.seed_files` enter the buffer. Returns a sentence a file. Raises UserError."""
        add_seeds(self.buffer, zero_tasks())
        selfplay, files = self.config.selfplay, [Path(name) for name in self.config.data.seed_files]
        report = load_seeds(
            files, self.buffer, self.executor, tuple(selfplay.imports), limits(self.config.executor), selfplay.induction_pairs
        )
        return report.sentences()

    def close(self) -> None:
        self.executor.close()
        self.buffer.close()

    # Solving

    def tasks(self) -> list[StoredTask]:
        """The tasks of the asked types, oldest first."""
        return self.buffer.tasks(*(TaskType(name) for name in self.config.selfplay.task_types))

    def draw(self, kind: TaskType, number: int) -> StoredTask:
        """The task of this number to solve, drawn when it is first asked for: of those that were proposed, of the others while there are none. Raises
        UserError."""

        def drawn() -> StoredTask:
            found = self._solver.draw_one(kind, STEP, self._random(number))
            if found is None:
                raise UserError(f"the buffer holds no {kind} task to solve: add some by data.seed_files, or begin with an empty buffer")
            return found

        with self._lock:
            return _remembered(self._drawn, (kind, number), drawn)

    def record(self, stored: StoredTask, graded: Graded) -> None:
        """Counts an answer to a task of the buffer: `selfplay.solve_from=learnable` and `selfplay.retire_easy` go by these counts."""
        self.buffer.record(stored.id, int(graded.score == 1), 1)

    def ask(self, task: Task) -> Messages:
        """The prompt to solve a task."""
        return ask(task, self.config)

    def verify(self, task: Task, answer: str) -> Verdict:
        """The verdict on an answer that stands alone, as `azr-nemo grade` gives it. Raises ExecutorUnavailable."""
        return self._solver.verifier.submit(task, answer).result()

    def grade(self, task: Task, reply: Reply) -> Graded:
        """The verdict on an answer. Raises ExecutorUnavailable when the sandbox fails: that is no verdict."""
        verdict = self._outcomes(self._solver.row(task), [reply])[0]
        return Graded(verdict.score, verdict.reason, solver_reward(verdict, self.config.reward))

    # Proposing

    def propose(self, kind: TaskType, number: int) -> Proposed:
        """The prompt of this number for a new task, `messages(proposed.row.prompt.text)`. Its references are drawn when it is first asked for, from the
        buffer as it then stands; who asks again answers the same prompt, so that a group can be compared."""
        with self._lock:
            first = _remembered(self._asked, (kind, number), lambda: self._proposer.row(kind, self._random(number)))
            return self._proposer.ask_again(first)

    def settle(self, proposed: Proposed, reply: Reply) -> Task | None:
        """The new task that a proposer's reply is, or None: `proposed.refusal` then says why. Raises ExecutorUnavailable."""
        self._outcomes(proposed.row, [reply])
        self._proposer.settle([proposed])
        return proposed.task if proposed.fresh else None

    def earn(self, proposed: Proposed, scores: Sequence[float]) -> float:
        """What a settled proposal earns: of a new task by the scores of the solver's replies to it; it then enters the buffer. 0 of a program that
        `eval.items` holds out, which a run does not train on either."""
        if proposed.fresh and not scores:
            raise ValueError("what a new task earns depends on the solver's replies to it")
        proposed.verdicts = tuple(Verdict(score, "") for score in scores)
        with self._lock:  # two equal proposals at once: the second is a duplicate
            if proposed.fresh and proposed.task and self.buffer.contains(proposed.task):
                proposed.refusal = "duplicate"
            attempts = self._proposer.rewarded([proposed], STEP)
            return attempts[0].reward if attempts else 0.0

    def _random(self, number: int) -> random.Random:
        return random.Random(f"{self.config.seed}/environment/{number}")

    @staticmethod
    def _outcomes(row: SampleGroup, replies: Sequence[Reply]) -> list[Verdict]:
        """What the group's reader makes of these replies, in order."""
        for number, reply in enumerate(replies):
            row.receive(number, Completion(reply.text, (), (), (), reply.finished))
        return row.outcomes()


def _remembered(kept: dict[Key, Kept], key: Key, make: Callable[[], Kept]) -> Kept:
    """What was made for this key, of which the latest REMEMBERED are kept."""
    if key not in kept:
        kept[key] = make()
        if len(kept) > REMEMBERED:
            del kept[next(iter(kept))]
    return kept[key]


def ask(task: Task, config: RunConfig) -> Messages:
    """The prompt to solve a task."""
    return messages(KINDS[task.type].solve_prompt(task, options_of(config.selfplay, FRAME)))


def stated(task: Task) -> dict[str, Any]:
    """A task as JSON keeps it."""
    return {**asdict(task), "type": task.type.value}


def task_of(row: Mapping[str, Any]) -> Task:
    """The task that `stated` made a row of. Raises UserError when it is none."""
    try:
        return Task(TaskType(row["type"]), row["program"], tuple(row["inputs"]), tuple(row["outputs"]), row.get("message", ""))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"a task needs type, program, inputs and outputs; this one fails at {error}") from None


def messages(prompt: PromptText) -> Messages:
    """The two messages of a prompt whose frame is `FRAME`."""
    return Messages(SYSTEM, str(prompt.full).removeprefix(SYSTEM + BETWEEN))


_made: dict[tuple[tuple[str, ...], str], Referee] = {}
_making = threading.Lock()


def referee(words: tuple[str, ...], buffer: str = "") -> Referee:
    """The referee of these settings in this process, made and seeded when first asked for; it ends with the process. buffer: its file, kept; without
    one it is a temporary file. Raises UserError, ExecutorUnavailable."""
    with _making:
        if (words, buffer) not in _made:
            config = settings(words)
            folder = None if buffer else tempfile.TemporaryDirectory(prefix="azr-nemo-")
            path = Path(folder.name) / "buffer.sqlite" if folder else Path(buffer)
            made = Referee(config, make_executor(config.executor), TaskBuffer(path, config.selfplay.buffer_capacity))
            made.folder = folder
            if not made.buffer.count():
                made.seed()
            _made[words, buffer] = made
        return _made[words, buffer]


def close_referees() -> None:
    """Ends their executors, closes their buffers and removes the temporary ones."""
    with _making:
        while _made:
            made = _made.popitem()[1]
            made.close()
            if made.folder:
                made.folder.cleanup()


atexit.register(close_referees)
