"""The one text in which a value is stored, and whether two texts state equal values.

Python writes a set in the order of its hashes, which the hash seed decides, so text that differs says little of values. The canonical text has the
elements of every set in ascending order (numbers and texts by their own, a mixture by type and text); a dict keeps the order in which it was filled,
which programs choose. Where runs fill equal dicts in different orders, the order means nothing, and their canonical text has the keys sorted too. Values
are equal by Python's `==`, as graders compare them: 1, 1.0 and True are one, as are 0.0 and -0.0; of texts that differ so the first in order is kept.
"""

import ast
from typing import Any

PARSES = 50


def literal_of(text: str) -> Any:
    """The value of a literal. Raises what `ast.literal_eval` raises: ValueError, TypeError, SyntaxError, MemoryError, RecursionError."""
    return ast.literal_eval(_parsed(text))


def canonical_text(value: Any, sort_dicts: bool = False) -> str:
    """The canonical text of a literal's value. sort_dicts: of one whose dicts were filled in no order that means anything."""
    plain = repr(value)
    return _written(value, sort_dicts) if "{" in plain else plain


def agreed_text(one: str | None, two: str | None) -> str | None:
    """The text of what two canonical texts state, when that is one value; None when it is not, or a text is missing."""
    if one is None or two is None or one == two:
        return one if one == two else None
    try:
        first, second = literal_of(one), literal_of(two)
        if first != second:
            return None
        return min(canonical_text(first, sort_dicts=True), canonical_text(second, sort_dicts=True))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _written(value: Any, sort_dicts: bool) -> str:
    kind = type(value)
    if kind is set and value:
        return "{" + ", ".join(_written(part, sort_dicts) for part in _in_order(value)) + "}"
    if kind is dict:
        keys = _in_order(value) if sort_dicts else value
        return "{" + ", ".join(f"{_written(key, sort_dicts)}: {_written(value[key], sort_dicts)}" for key in keys) + "}"
    if kind is list:
        return "[" + ", ".join([_written(part, sort_dicts) for part in value]) + "]"
    if kind is tuple:
        return "(" + ", ".join([_written(part, sort_dicts) for part in value]) + (",)" if len(value) == 1 else ")")
    return repr(value)


def _in_order(parts: Any) -> list[Any]:
    """Elements or keys, all different, in an order that their values alone decide."""
    if all(type(part) in (int, float, bool) for part in parts) or all(type(part) is str for part in parts):
        return sorted(parts)
    return sorted(parts, key=lambda part: (type(part).__name__, canonical_text(part)))


def _parsed(text: str) -> ast.Expression:
    """CPython before 3.11.8 may raise SystemError for good text while another thread parses (gh-106905); it is then asked again."""
    for _ in range(PARSES):
        try:
            return ast.parse(text.lstrip(" \t"), mode="eval")
        except SystemError:
            continue
    raise ValueError("this text cannot be parsed while others are")
