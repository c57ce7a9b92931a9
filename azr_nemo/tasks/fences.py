"""A line-anchored parser of Markdown fences: a fence opens and closes only at the start of a line, so backticks inside code survive."""

import re
from dataclasses import dataclass

OPENER = re.compile(r"^ {0,3}(?P<ticks>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`]*)[^`\n]*$")
SPACE = " \t\r"  # what may stand around the ticks that close; form feeds and wider spaces are text
ALIASES = {"py": "python", "python3": "python"}


@dataclass(frozen=True)
class Fence:
    """One fenced block: its tag in lower case (`py` and `python3` are `python`), its text, and whether it was closed."""

    tag: str
    text: str
    closed: bool = True


def fences(text: str) -> list[Fence]:
    """All fenced blocks of a text in order. A block is closed by a line of at least as many of its own ticks and nothing else."""
    found: list[Fence] = []
    tag, ticks = "", ""
    lines: list[str] = []
    for line in text.split("\n"):
        if not ticks:
            if match := OPENER.match(line):
                ticks, tag, lines = match["ticks"], match["tag"].lower(), []
        elif (bare := line.strip(SPACE)) and set(bare) == {ticks[0]} and len(bare) >= len(ticks):
            found.append(Fence(ALIASES.get(tag, tag), "\n".join(lines)))
            ticks = ""
        else:
            lines.append(line)
    if ticks:
        found.append(Fence(ALIASES.get(tag, tag), "\n".join(lines), closed=False))
    return found


def tagged(text: str, tag: str) -> list[str]:
    """The texts of the closed fences with this tag."""
    return [fence.text for fence in fences(text) if fence.closed and fence.tag == tag]


def fence(tag: str, text: str) -> str:
    """A fenced block that `fences` reads back, whatever the text holds: the ticks are longer than any line of ticks inside."""
    longest = max((len(run) for run in re.findall(r"^[ \t\r]*(`{3,})", text, re.MULTILINE)), default=2)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{tag}\n{text}\n{ticks}\n"
