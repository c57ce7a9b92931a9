"""What a benchmark is to this project: items with a question, and a grader of responses. Each suite is one object in `suites.SUITES`."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from azr_nemo.sandbox.executor import Executor
from azr_nemo.tasks.task import PromptOptions, PromptText

if TYPE_CHECKING:
    from azr_nemo.evaluation.maths.grader import MathGrader

Group = Literal["code", "math", "reasoning"]
WITHOUT_ECHO = "without_echo"  # a part of the grade of an input: right, and not by writing the output down again


@dataclass(frozen=True)
class Item:
    """One problem. question: what the model is asked, before any prompt template. reference: what the grader needs, JSON values only; it is never
    shown to the model and never enters the jail where that could be avoided."""

    id: str
    question: str
    reference: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """right: what pass@1 counts. reason: a short slug such as right, wrong_value, no_answer, error, timeout. answer: what was read out of the response.
    parts: further verdicts by name, such as {"base": True} beside EvalPlus' extended tests."""

    right: bool
    reason: str
    answer: str | None = None
    parts: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Tools:
    """What graders use. executor: runs code that a model wrote. maths: compares answers in a process of its own, under a deadline; None when no
    suite needs it."""

    executor: Executor
    maths: "MathGrader | None" = None


class Suite(Protocol):
    """A benchmark. Stateless."""

    @property
    def name(self) -> str: ...

    @property
    def group(self) -> Group: ...

    @property
    def size(self) -> int:
        """Items of the whole public set."""
        ...

    @property
    def template(self) -> str:
        """The prompt template it is asked with unless told otherwise: a name of `templates.TEMPLATES`."""
        ...

    @property
    def max_tokens(self) -> int:
        """The longest response, as in the original's evaluation."""
        ...

    @property
    def origin(self) -> str:
        """Where the public file comes from: "download X from Y"."""
        ...

    def convert(self, rows: Iterable[Mapping[str, Any]], tools: Tools) -> list[Item]:
        """Items from the rows of the public file, in its order. Raises UserError naming the row when one lacks what is needed."""
        ...

    def submit(self, item: Item, response: str, tools: Tools) -> "Future[Grade]":
        """Starts grading a response (the text after the prompt, prefill included). Raises ExecutorUnavailable, and UserError when a tool is
        missing; a bad response is a Grade."""
        ...

    def ideal(self, item: Item) -> str:
        """A response that states the reference solution: it must be graded right."""
        ...

    def wrong(self, item: Item) -> str:
        """A well-formed response that states a wrong solution: it must be graded wrong."""
        ...


@runtime_checkable
class Styled(Protocol):
    """A suite whose items are tasks of self-play, so that they can be asked in the prompt style that a model was trained in."""

    def styled(self, options: PromptOptions, shots: int = 0) -> Suite:
        """The same suite, asked and read in this style, each item after so many worked examples."""
        ...

    def prompt(self, item: Item) -> PromptText | None:
        """The item in the suite's style; None where it is asked in a template."""
        ...
