"""Whether an output is right, as EvalPlus 0.3 decides it (evalplus/eval/__init__.py, `unsafe_execute`, and eval/_special_oracle.py).

Outputs are texts of `in_jail.text`; nothing here runs a solution.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from azr_nemo.evaluation.code.solution import read
from azr_nemo.tasks.parsing import NotLiteral

RTOL = 1e-7
FLOAT_ATOL = 1e-6  # where a problem gives no tolerance but the output is a float, or a row of floats
NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
AS_SETS = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum", "intersection_array", "find_dissimilar", "Diff",
)  # fmt: skip


def view(dataset: str, entry_point: str) -> str:
    """What of the returned value is compared: a word of `in_jail.seen`."""
    if dataset == "mbpp":
        if entry_point in NOT_NONE:
            return "not_none"
        if entry_point in AS_SETS:
            return "set"
        if entry_point == "are_equivalent":
            return "any"
    return "value"


def oracle(dataset: str, entry_point: str) -> str:
    """The name in ORACLES of the rule by which more than the canonical output is right; empty when there is none."""
    special = {"mbpp": ("sum_div", "surface_Area", "digit_distance_nums"), "humaneval": ("find_zero",)}
    return entry_point if entry_point in special[dataset] else ""


def right(found: str, expected: str, atol: float, oracle: str = "", arguments: str = "") -> bool:
    """Whether the output `found` is right. arguments: argument text of the call, for an oracle. False for whatever cannot be compared."""
    if oracle != "find_zero" and found == expected:
        return True
    try:
        value = read(found)
        if oracle == "find_zero":
            (coefficients,) = _arguments(arguments)
            return bool(abs(_polynomial(coefficients, value)) <= atol)
        if oracle and ORACLES[oracle](value, _arguments(arguments), atol):
            return True
        return same(value, read(expected), atol)
    except (NotLiteral, ArithmeticError, TypeError, ValueError, RecursionError):
        return False


def equal(found: str, expected: str) -> bool:
    """Whether two outputs are equal by Python's `==`, as LiveCodeBench decides it."""
    try:
        return found == expected or bool(read(found) == read(expected))
    except (NotLiteral, RecursionError):
        return False


def same(value: Any, expected: Any, atol: float) -> bool:
    """Equal, or of one type and near: |value - expected| <= atol + 1e-7 |expected|, element by element."""
    if value == expected:
        return True
    if atol == 0 and _floats(expected):
        atol = FLOAT_ATOL
    return atol != 0 and type(value) is type(expected) and _near(value, expected, atol)


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(element, float) for element in value)
    return isinstance(value, float)


def _near(value: Any, expected: Any, atol: float) -> bool:
    """numpy.allclose, for rows of equal shape."""
    if isinstance(expected, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            return False
        return all(_near(one, other, atol) for one, other in zip(value, expected, strict=True))
    numbers = (bool, int, float, complex)
    if not (isinstance(value, numbers) and isinstance(expected, numbers)):
        return False
    return value == expected or bool(math.isfinite(abs(expected)) and abs(value - expected) <= atol + RTOL * abs(expected))


def _arguments(text: str) -> Sequence[Any]:
    return read(f"({text},)")


def _polynomial(coefficients: list[float], x: float) -> float:
    return sum(coefficient * math.pow(x, i) for i, coefficient in enumerate(coefficients))


def _surface_area(value: Any, arguments: Sequence[Any], atol: float) -> bool:
    """Of a pyramid whose given height is that from the base to the apex, not that of its sides."""
    edge, height = arguments
    slant = math.sqrt((edge / 2) ** 2 + height**2)
    return bool(abs(value - round(edge**2 + 4 * (edge * slant) / 2)) <= atol)


def _digit_distance(value: Any, arguments: Sequence[Any], atol: float) -> bool:
    """Between numbers padded with zeros to one length."""
    one, other = map(str, arguments)
    width = max(len(one), len(other))
    return bool(value == sum(abs(int(a) - int(b)) for a, b in zip(one.zfill(width), other.zfill(width), strict=True)))


ORACLES: dict[str, Callable[[Any, Sequence[Any], float], bool]] = {
    "sum_div": lambda value, arguments, atol: bool(value == 0),
    "surface_Area": _surface_area,
    "digit_distance_nums": _digit_distance,
}
