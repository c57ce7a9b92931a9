"""Rendering of the prompt templates and of ideal responses. Model-written text is only ever inserted, never interpreted: whatever a template
inserts is marked as data (tasks/marked.py), so that it cannot become a special token either."""

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.marked import Marked, joined, marked, read, template
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal

RESPONSE = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>", re.DOTALL)


def think_answer(response: str) -> str | None:
    """What stands between the answer tags of a response of the form `<think>..</think> <answer>..</answer>`, or None.

    Text after the answer is ignored, as in the reference; a second answer is not looked for.
    """
    match = RESPONSE.match(response)
    return match["answer"] if match else None


THINK = template("<think>")


@cache
def _environment() -> Environment:
    loader = PackageLoader("azr_nemo.tasks", "prompts")
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=marked
    )
    environment.filters["fence"] = lambda text, tag: fence(tag, text)
    return environment


def render(name: str, **values: object) -> Marked:
    """The text of `prompts/<name>`. What it inserts is data, but for what is marked as another template's."""
    return read(_environment().get_template(name).render(**values))


def prompt(name: str, opening: str, options: PromptOptions, **values: object) -> PromptText:
    """The prompt `name` in the style of the options. opening: the tag of the fence that a completion-style response starts in."""
    if options.style == "completion":
        return PromptText(render(f"{name}.completion.j2", options=options, **values), template(f"```{opening}\n"))
    body = render(f"{name}.r1.j2", options=options, **values)
    return PromptText(render("conversation.r1.j2", request=body.strip()), THINK)


def response(body: str, opening: str, options: PromptOptions) -> str:
    """The completion (without the prefill) that gives `body`, marked as data, fenced blocks of which the first is tagged `opening`.

    Raises ValueError where the text cannot be stated: when it needs longer fences than the prefill's in the completion style, or holds
    the tag that ends an answer in the R1 style.
    """
    if options.style == "completion":
        prefill = f"```{opening}\n"
        if not body.startswith(prefill):
            raise ValueError("this text holds fences of its own and cannot be written in the completion style")
        return body.removeprefix(prefill)
    if "</answer>" in body:
        raise ValueError("this text holds </answer> and cannot be written in the R1 style")
    return joined(template(" </think>\n<answer>\n"), body, template("</answer>"))


def answered(text: str, options: PromptOptions) -> str | Refusal:
    """The part of a response that is read: all of it in the completion style, the answer tags' content in the R1 style."""
    if options.style == "completion":
        return text
    answer = think_answer(text)
    return Refusal("format", "the response is not of the form <think>...</think> <answer>...</answer>") if answer is None else answer
