"""The names that docs/metrics.md lists."""

import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
PLACES = {"T": "(deduction|abduction|induction)", "<phase>": r"\w+", "<reason>": r"\w+", "<suite>": r"\w+", "NAME": r"\w+"}


def rows() -> list[list[str]]:
    """The cells of the tables' rows that begin with a name; those below are about rollouts."""
    lines = [line for line in PAGE.read_text().partition("\n## Rollouts\n")[0].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def unlisted(names: Iterable[str]) -> list[str]:
    """Those of the names that no row lists."""
    patterns = [_pattern(name) for row in rows() for name in re.findall(r"`([^`]+)`", row[0])]
    return sorted(name for name in names if not any(pattern.fullmatch(name) for pattern in patterns))


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"(<\w+>|\bT(?=[/_]|$)|\bNAME\b)", name)
    return re.compile("".join(PLACES.get(part, re.escape(part)) for part in parts))
