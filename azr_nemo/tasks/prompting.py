"""Rendering of the prompt templates. Model-written text is only ever inserted, never interpreted: whatever a template inserts is marked as data
(tasks/marked.py), so that it cannot become a special token either."""

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.marked import Marked, marked, read, template
from azr_nemo.tasks.program import body_lines

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
    environment.filters["comment"] = lambda text: "\n".join(f"# {line}" for line in text.split("\n"))
    environment.filters["body_lines"] = body_lines
    return environment


def render(name: str, **values: object) -> Marked:
    """The text of `prompts/<name>`. What it inserts is data, but for what is marked as another template's."""
    return read(_environment().get_template(name).render(**values))
