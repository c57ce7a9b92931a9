"""How a question is put to a model: the shapes that the original evaluates with, and a chat model's own."""

from collections.abc import Callable
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.evaluation.suite import Item, Styled, Suite
from azr_nemo.tasks.marked import marked, read
from azr_nemo.tasks.prompting import THINK, render
from azr_nemo.tasks.styles.chat import chat_frame
from azr_nemo.tasks.task import PromptOptions, PromptText

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."


def _r1(question: str, tokenizer: Any) -> PromptText:
    return PromptText(render("conversation.r1.j2", request=question.strip()), THINK)


def _r1_open(question: str, tokenizer: Any) -> PromptText:
    return PromptText(render("conversation.r1.j2", request=question.strip()))


def _r1_boxed(question: str, tokenizer: Any) -> PromptText:
    return PromptText(render("conversation.r1.j2", request=f"{question.strip()}\n{BOXED}"))


def _chat(question: str, tokenizer: Any) -> PromptText:
    if not tokenizer.chat_template:
        raise UserError("template=chat, but the model's tokenizer has no chat template: choose template=r1, or raw")
    turns = [{"role": "user", "content": marked(question)}]
    return PromptText(read(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)))


def _raw(question: str, tokenizer: Any) -> PromptText:
    return PromptText(question)


# The names in brackets are the original's.
TEMPLATES: dict[str, Callable[[str, Any], PromptText]] = {
    "r1": _r1,  # as in training: the conversation, and <think> already open (azr_think)
    "r1_open": _r1_open,  # the conversation, and the model begins (azr)
    "r1_boxed": _r1_boxed,  # the same, asking for a boxed answer (azr_boxed)
    "chat": _chat,  # the tokenizer's chat template, one user turn
    "raw": _raw,  # the question as it is, for models that go on with a text
}


def prompt_text(suite: Suite, item: Item, template: str, tokenizer: Any) -> PromptText:
    """What the model is shown of an item: in the prompt style that the suite was given (`in_style`), else in the template."""
    styled = suite.prompt(item) if isinstance(suite, Styled) else None
    return styled or TEMPLATES[template](item.question, tokenizer)


def in_style(suite: Suite, style: str, tokenizer: Any, shots: int = 0) -> Suite:
    """The suite asked in a prompt style of self-play (tasks/styles), after so many worked examples, where its items are tasks; any other as it is.
    Raises UserError for a chat style and a tokenizer without a chat template."""
    if not isinstance(suite, Styled):
        return suite
    return suite.styled(PromptOptions(style, frame=chat_frame(tokenizer) if style.startswith("chat") else ("", "", "")), shots)
