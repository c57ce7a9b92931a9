"""What a task is: a validated program with its inputs and outputs, and the interface that each task type implements.

A task type knows its prompts, how to read what the model answered, what must be executed to judge it, and how to judge it. It never
executes anything itself: it returns `Calls` (a program and argument texts), and somebody runs them and hands back the `Result`s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

from azr_nemo.tasks.marked import joined


class _Types(type):
    """Of TaskType: iterating over the class gives the task types in the order in which they were named."""

    def __iter__(cls) -> Iterator["TaskType"]:
        return iter(tuple(TaskType.named.values()))

    def __len__(cls) -> int:
        return len(TaskType.named)


class TaskType(str, metaclass=_Types):
    """A task type's name: there is one object for each, so that `is` compares them. `TaskType(text)` is the one of that name; raises ValueError."""

    named: ClassVar[dict[str, "TaskType"]] = {}
    DEDUCTION: ClassVar["TaskType"]  # program + input  -> output   (code_o in the reference)
    ABDUCTION: ClassVar["TaskType"]  # program + output -> input    (code_i)
    INDUCTION: ClassVar["TaskType"]  # pairs + message  -> program  (code_f)

    def __new__(cls, name: str) -> "TaskType":
        if name not in cls.named:
            raise ValueError(f"{name!r} is no task type: there are {', '.join(cls.named)}")
        return cls.named[name]

    @classmethod
    def new(cls, name: str) -> "TaskType":
        """The task type of this name, a new one where there is none: it stands in metrics' names, prompts and files."""
        if not name.isidentifier():
            raise ValueError(f"{name!r} cannot name a task type: letters, digits and underscores")
        return cls.named.setdefault(name, str.__new__(cls, name))

    @property
    def value(self) -> str:
        """The name as a plain str."""
        return str.__str__(self)


TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION = map(TaskType.new, ("deduction", "abduction", "induction"))


class Role(StrEnum):
    PROPOSE = "propose"
    SOLVE = "solve"


@dataclass(frozen=True)
class Task:
    """A validated task. `inputs` are argument texts (what stands between the parentheses of `f(...)`), `outputs` reprs of literals.

    Deduction and abduction have exactly one pair; induction has several and a message.
    """

    type: TaskType
    program: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    message: str = ""

    @property
    def input(self) -> str:
        return self.inputs[0]

    @property
    def output(self) -> str:
        return self.outputs[0]


@dataclass(frozen=True)
class Proposal:
    """What a proposer wrote, parsed and statically checked, not yet executed."""

    type: TaskType
    program: str
    inputs: tuple[str, ...]
    message: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why a text is not a proposal or not an answer: `reason` is a short slug (for counting), `detail` a sentence."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Calls:
    """A program and the argument texts it must be called with."""

    program: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What came of one call: `value` is the repr of a literal when `ok`, else None and `status` says why (an executor's status)."""

    ok: bool
    value: str | None = None
    status: str = "ok"
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """The grade of one answer. `score` is in [0, 1]; `reason` is a short slug such as right, wrong_value, not_one_call, error, timeout."""

    score: float
    reason: str


@dataclass(frozen=True)
class PromptText:
    """A prompt as text, marked (tasks/marked.py): what a template did not write is data and never becomes a special token.
    `prefill` is its tail that already belongs to the response (an opened `<think>` or fence).

    The model is shown `text + prefill`; what is parsed is `prefill + completion`. `stop`: strings that end the response, which stay in it.
    """

    text: str
    prefill: str = ""
    stop: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        return joined(self.text, self.prefill)


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are written and answers are read. style: one of tasks/styles."""

    style: str = "r1"
    pairs: int = 10  # induction: how many inputs a proposer gives
    allowed_imports: tuple[str, ...] = field(default=())  # what a proposed program may import; empty: the default list
    lines: int | None = None  # a requested length of the program's body
    wishes: tuple[
        str, ...
    ] = ()  # a type of input, then operations, that a proposed deduction or abduction program is asked to have (tasks/wishes.py)
    functions: tuple[str, ...] = ()  # g_0, g_1, ... that a proposed deduction or abduction program must call (tasks/composite.py)
    # What is taken out of a proposed program: comments and docstrings; top-level statements but imports, functions and classes; prints.
    strip_comments: bool = False
    strip_globals: bool = False
    strip_prints: bool = False
    frame: tuple[str, str, str] = (
        "",
        "",
        "",
    )  # of a chat template (styles/chat.py): what stands before, between and after the two messages
    wording: int = 0  # which of its style's wordings a solver's prompt has
    rename_entry: bool = False  # a proposed program without a function f: its last top-level one is renamed


class TaskKind(Protocol):
    """One task type. Implemented in deduction.py, abduction.py, induction.py; looked up in `tasks.KINDS` by its type."""

    type: TaskType

    def propose_prompt(self, references: list[Task], options: PromptOptions) -> PromptText:
        """Prompt for a new task. Induction uses the first reference's program; deduction and abduction show all."""
        ...

    def parse_proposal(self, response: str, references: list[Task], options: PromptOptions) -> Proposal | Refusal:
        """Reads a proposer's response (prefill included)."""
        ...

    def proposal_text(self, proposal: Proposal, options: PromptOptions) -> str:
        """The completion (prefill excluded) that states this proposal: parse_proposal(prefill + proposal_text) gives it back."""
        ...

    def task(self, proposal: Proposal, results: list[Result]) -> Task | Refusal:
        """The validated task once its program ran on its inputs, or why it is none."""
        ...

    def solve_prompt(self, task: Task, options: PromptOptions) -> PromptText: ...

    def known_answer(self, task: Task) -> str:
        """What a right answer says, as the task was made."""
        ...

    def parse_answer(self, response: str, options: PromptOptions) -> str | Refusal:
        """The answer text in a solver's response (prefill included): an output literal, an argument text or a program."""
        ...

    def answer_text(self, answer: str, options: PromptOptions) -> str:
        """The completion (prefill excluded) that states this answer: parse_answer(prefill + answer_text) gives it back."""
        ...

    def verification(self, task: Task, answer: str, allowed_imports: Sequence[str] = ()) -> Calls | Verdict:
        """What must run to judge the answer, or the verdict itself when nothing must run. allowed_imports: of an answer that is a program;
        empty: the default list."""
        ...

    def score(self, task: Task, results: list[Result], partial: bool = False) -> Verdict:
        """The verdict from what came of `verification`'s calls. partial: induction scores the share of hidden pairs."""
        ...
