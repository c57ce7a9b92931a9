"""Makes text that a model wrote safe and short enough to show in a terminal."""


def printable(text: str) -> str:
    """The text with everything a terminal could act on, or that hides letters, spelt out as an escape; newlines stay, tabs widen."""
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text.expandtabs(4)
    )


def clip(text: str, lines: int, width: int) -> list[str]:
    """At most `lines` lines of at most `width` characters; what was cut is marked, from the middle of the text and the end of a line."""
    rows = [row if len(row) <= width else row[: width - 1] + "…" for row in text.strip("\n").split("\n")]
    if len(rows) <= lines:
        return rows
    head, tail = (lines - 1) - (lines - 1) // 3, (lines - 1) // 3
    return [*rows[:head], f"… {len(rows) - head - tail} more lines …", *rows[len(rows) - tail :]]
