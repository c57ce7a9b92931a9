"""Prompt styles: how a model is asked, how its answers are read, and where they stop. One file a style; its templates are prompts/NAME.STYLE.j2.

Every style reads a response as fenced blocks, tagged `python`, `input`, `output` or `message`, and states an answer that is given as such blocks:
that is the form in which the task types know answers.
"""

from typing import Protocol

from azr_nemo.tasks.styles.chat import Chat
from azr_nemo.tasks.styles.code import Code
from azr_nemo.tasks.styles.completion import Completion
from azr_nemo.tasks.styles.r1 import R1
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal


class Style(Protocol):
    """A way to ask. name: of the prompt: propose_triplet, propose_induction, solve_deduction, solve_abduction, solve_induction. With an attribute
    `wordings` it has so many wordings of each solver's prompt, which `options.wording` tells apart, and reads the answers to all of them alike."""

    def prompt(self, name: str, options: PromptOptions, **values: object) -> PromptText:
        """The prompt, with its prefill and what ends its answers."""
        ...

    def read(self, name: str, text: str) -> str | Refusal:
        """The fenced blocks of a response (prefill included), of which the last with its tag is the answer to a solver's prompt."""
        ...

    def write(self, name: str, body: str, options: PromptOptions) -> str:
        """The completion (prefill excluded, the stop string included) that says what these fenced blocks say. Raises ValueError where it
        cannot be said in this style."""
        ...


STYLES: dict[str, Style] = {
    "r1": R1(),
    "completion": Completion(),
    "code": Code(),
    "chat": Chat(thoughts=False),
    "chat_thoughts": Chat(thoughts=True),
}


def style(options: PromptOptions) -> Style:
    """The style of the options."""
    return STYLES[options.style]
