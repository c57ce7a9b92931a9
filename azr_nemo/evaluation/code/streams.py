"""Comparing what a script printed with what it should print."""

from decimal import Decimal, InvalidOperation


def same_output(printed: str, expected: str) -> bool:
    """Line by line without the space around them: equal, or equal numbers throughout, as LiveCodeBench has it (`grade_stdio`)."""
    ours, theirs = _lines(printed), _lines(expected)
    return len(ours) == len(theirs) and all(one == other or _same_numbers(one, other) for one, other in zip(ours, theirs, strict=True))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_numbers(one: str, other: str) -> bool:
    """Decimals, as floats would find 50000000000000000 and 50000000000000001 equal."""
    try:
        return [Decimal(word) for word in one.split()] == [Decimal(word) for word in other.split()]
    except InvalidOperation:
        return False
