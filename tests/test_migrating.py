"""docs/migrating.md names only settings, recipes and pages that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in PAGE.partition("## Settings")[2].splitlines() if line.startswith("| `")]
SETTINGS = set(re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs/settings.md").read_text(encoding="utf-8"), re.MULTILINE))
GROUPS = {"rollout"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_setting_of_ours_is_one(row: list[str]) -> None:
    assert len(row) == 3, row
    for text in re.findall(r"`([^`]+)`", row[1]):
        name = text.partition("=")[0]
        if "." in name or "=" in text:
            assert name in SETTINGS | GROUPS, name


def test_every_setting_is_given_once_and_every_recipe_and_page_is_there() -> None:
    theirs = [text for row in ROWS for text in re.findall(r"`([^`]+)`", row[0])]
    assert len(theirs) == len(set(theirs)) > 90
    for recipe in re.findall(r"\b[a-z0-9_]+-\dn\dg-megatron\b", PAGE):
        assert (ROOT / "recipes" / f"{recipe}.yaml").is_file(), recipe
    for link in re.findall(r"\]\(([\w./]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link
