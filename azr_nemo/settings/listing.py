"""All settings for people, from what stands on their fields: what `--help-settings` prints, and docs/settings.md."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any, get_args, get_origin

from azr_nemo.errors import UserError
from azr_nemo.settings.field import Leaf, Registered, leaves, locate

TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
WIDTH = 110


def text(kind: Any, registered: Registered, prefix: str = "") -> str:
    """The settings whose keys begin with the prefix: type, bounds and default in a line, their meaning below it. Raises UserError when there is none."""
    found = [leaf for leaf in leaves(kind(), by_name=False) if leaf.key.startswith(prefix)]
    if not found:
        raise UserError(f"no setting of `azr-nemo {kind.COMMAND}` begins with {prefix}: --help-settings alone prints all of them")
    return "\n".join(line for leaf in found for line in _lines(leaf, registered))


def page(kind: Any, registered: Registered) -> str:
    """All settings as Markdown, a table for each section."""
    parts = [
        "# Settings",
        "",
        "Of `azr-nemo train`, `plan`, `seed`, `launch` and `doctor`, as `azr-nemo train --help-settings [PREFIX]` prints them. This page is made",
        "from their fields (`azr_nemo/settings/`) by `python -m azr_nemo.planning.run_settings > docs/settings.md`.",
        "",
        "A setting is given as KEY=VALUE on the command line, or in a recipe's YAML. On the command line text is taken as it is typed, whatever",
        "characters it holds; quotes around the whole of it are left off, and a path that begins with `~` is in a home directory. A list is `[a,b]`, with",
        "quotes around what holds a comma; a single value needs no brackets. Whole numbers without another bound are at most 2,147,483,647.",
    ]
    for section, group in groupby(leaves(kind(), by_name=False), lambda leaf: leaf.key.rpartition(".")[0]):
        parts += ["", f"## {section or 'The run'}", "", *_about(kind, section)]
        parts += ["| setting | type | default | may be | meaning |", "|---|---|---|---|---|"]
        for leaf in group:
            cells = (f"`{leaf.key}`", _type(leaf.type), f"`{_default(leaf)}`", _bounds(leaf, registered), leaf.about.meaning)
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(parts) + "\n"


def _lines(leaf: Leaf, registered: Registered) -> Iterator[str]:
    bounds = _bounds(leaf, registered)
    yield f"{leaf.key}={_default(leaf)}"
    yield from textwrap.wrap(f"{_type(leaf.type)}{bounds and ': '}{bounds}", WIDTH, initial_indent="    ", subsequent_indent="      ")
    yield from textwrap.wrap(leaf.about.meaning, WIDTH, initial_indent="    ", subsequent_indent="    ")


def _type(kind: Any) -> str:
    return f"list of {_type(get_args(kind)[0])}s".replace("texts", "text") if get_origin(kind) is list else TYPES[kind]


def _default(leaf: Leaf) -> str:
    value = leaf.value
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(leaf: Leaf, registered: Registered) -> str:
    return ", ".join(leaf.about.words(registered)) or leaf.about.bounds() or ("a path" if leaf.about.path else "")


def _about(kind: Any, section: str) -> list[str]:
    """The docstring of a section's class, where it has one of its own."""
    found = locate(kind, section) if section else kind
    said = found.__doc__ or ""
    return [] if said.startswith(f"{found.__name__}(") else [" ".join(said.split()), ""]  # a dataclass without one is given its signature
