"""JSON lines are read in one way: they end at a newline alone and are UTF-8 whatever the locale; a byte order mark and CRLF are accepted."""

import codecs
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError


def value(line: bytes) -> Any:
    """What one line says. Raises ValueError for what is no JSON in UTF-8."""
    try:
        return json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply to be a row") from None


def objects(path: str | Path, broken: Callable[[int, str], str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with the numbers of their lines, one at a time; blank lines are skipped.

    broken: the sentence for a line that is no JSON object, from its number and the reason. Raises UserError with that, or naming the file when it
    cannot be read or is not UTF-8.
    """
    broken = broken or (lambda number, reason: f"{path}, line {number}: {reason}")
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(path, line, partial(broken, number))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected a file of JSON lines; check the path") from None


def _object(path: str | Path, line: bytes, broken: Callable[[str], str]) -> dict[str, Any]:
    try:
        row = value(line)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: expected one JSON object a line") from None
    except ValueError as error:  # json.JSONDecodeError is one
        raise UserError(broken(str(error))) from None
    if not isinstance(row, dict):
        raise UserError(broken(f"expected a JSON object, found {type(row).__name__}"))
    return row
