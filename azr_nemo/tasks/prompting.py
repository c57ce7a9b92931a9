"""Rendering of the prompt templates. Model-written text is only ever inserted, never interpreted."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.program import body_lines

THINK = "<think>"


@cache
def _environment() -> Environment:
    loader = PackageLoader("azr_nemo.tasks", "prompts")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["fence"] = lambda text, tag: fence(tag, text)
    environment.filters["comment"] = lambda text: "\n".join(f"# {line}" for line in text.split("\n"))
    environment.filters["body_lines"] = body_lines
    return environment


def render(template: str, **values: object) -> str:
    """The text of `prompts/<template>`."""
    return _environment().get_template(template).render(**values)
