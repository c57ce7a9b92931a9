"""A line-anchored parser of Markdown fences, by CommonMark: a fence opens and closes only where a line begins, so backticks inside code survive.

A line begins where the block that it stands in does: after the content offset of a list item (`1. ` makes it 3), after the `>` of a quote. An opener
or closer is indented by at most three more. The opener's whole indentation is taken off the lines of the block. More lenient than CommonMark in one
way: a line that is indented by less than its list item still belongs to the block, as models forget to indent.
"""

import re
from dataclasses import dataclass, field

OPENER = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`]*)[^`\n]*$")
ITEM = re.compile(r"^[ \t]*(?:[-+*]|[0-9]{1,9}[.)])[ \t]{1,4}(?=[^ \t\r])")  # a list's marker and the space up to its content
QUOTE = re.compile(r"^ {0,3}> ?")
DEEPEST = 3  # columns that a line may be indented by and still not be indented code
SPACE = " \t\r"  # what may stand behind the ticks that close; form feeds and wider spaces are text
ALIASES = {"py": "python", "python3": "python"}


@dataclass(frozen=True)
class Fence:
    """One fenced block: its tag in lower case (`py` and `python3` are `python`), its text, and whether it was closed."""

    tag: str
    text: str
    closed: bool = True


@dataclass
class _Open:
    """A block that is being read. offset: the column that its container's content begins in; indent: the opener's own column."""

    tag: str
    ticks: str
    offset: int
    indent: int
    quotes: int
    lines: list[str] = field(default_factory=list)

    def ends_with(self, line: str) -> bool:
        bare = line.lstrip(" \t").rstrip(SPACE)
        return set(bare) == {self.ticks[0]} and len(bare) >= len(self.ticks) and _indent(line) <= self.offset + DEEPEST

    def fence(self, closed: bool) -> Fence:
        return Fence(ALIASES.get(self.tag, self.tag), "\n".join(self.lines), closed)


def fences(text: str) -> list[Fence]:
    """All fenced blocks of a text in order. A block is closed by a line of at least as many of its own ticks and nothing else."""
    found: list[Fence] = []
    block: _Open | None = None
    items: list[int] = []  # content offsets of the list items that a line may still belong to
    after_blank = True
    for line in text.split("\n"):
        if block is None:
            inner, quotes = _unquoted(line)
            if after_blank and inner.strip():
                items = [offset for offset in items if offset <= _indent(inner)]
            block = _opened(inner, quotes, items)
            after_blank = not inner.strip()
            continue
        inner, _ = _unquoted(line, block.quotes)
        if block.ends_with(inner):
            found.append(block.fence(closed=True))
            block = None
        else:
            block.lines.append(_dedented(inner, block.indent))
    return [*found, block.fence(closed=False)] if block else found


def _opened(line: str, quotes: int, items: list[int]) -> _Open | None:
    """The block that a line opens, if any. items: changed by the list items that begin in this line."""
    column = 0
    while marker := ITEM.match(line):
        column += len(marker[0].expandtabs(4))
        items[:] = [*(offset for offset in items if offset < column), column]
        line = line[marker.end() :]
    match = OPENER.match(line)
    if not match:
        return None
    indent = column + _indent(line)
    offsets = [offset for offset in (0, *items) if 0 <= indent - offset <= DEEPEST]
    return _Open(match["tag"].lower(), match["ticks"], max(offsets), indent, quotes) if offsets else None


def _unquoted(line: str, most: int = 100) -> tuple[str, int]:
    """A line without the marks of at most so many quotes around it, and how many these were."""
    count = 0
    while count < most and (match := QUOTE.match(line)):
        line, count = line[match.end() :], count + 1
    return line, count


def _indent(line: str) -> int:
    """The column of a line's first character that is no space."""
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4))


def _dedented(line: str, columns: int) -> str:
    """A line without its first columns, as far as they are blank."""
    bare = line.lstrip(" \t")
    space = line[: len(line) - len(bare)]
    return (space.expandtabs(4) if "\t" in space and columns else space)[columns:] + bare


def tagged(text: str, tag: str) -> list[str]:
    """The texts of the closed fences with this tag."""
    return [fence.text for fence in fences(text) if fence.closed and fence.tag == tag]


def fence(tag: str, text: str) -> str:
    """A fenced block that `fences` reads back, whatever the text holds: the ticks are longer than any line of ticks inside."""
    longest = max((len(run) for run in re.findall(r"^[ \t\r]*(`{3,})", text, re.MULTILINE)), default=2)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{tag}\n{text}\n{ticks}\n"
