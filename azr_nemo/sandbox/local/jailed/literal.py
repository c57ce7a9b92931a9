"""Decides whether a value is a literal, before any code of the value's own could run, and writes it as text."""

# The program may replace names in `builtins`; bound here, these stay what they were.
from builtins import Exception, ValueError, bool, bytes, complex, dict, float, int, len, list, repr, set, str, tuple, type  # noqa: UP029
from typing import Any

DEEPEST = 80  # nesting that `ast.literal_eval` reads back with room to spare, wherever it is called
MOST_BITS = 14_280  # of an int whose text stays under CPython's limit of 4,300 digits, so that everybody can read it back
INFINITY = float("inf")


class Refused(Exception):
    """A call that has no acceptable value: the outcome's status and a sentence."""

    def __init__(self, status: str, reason: str):
        super().__init__(status, reason)
        self.status, self.reason = status, reason


def literal_text(value: Any, longest: int) -> str:
    """The repr of a value built of exactly None, bool, int, float, complex, str, bytes, list, tuple, dict and set, at most `longest` characters.

    Types are compared by identity: a subclass, or a class whose metaclass claims equality, is not a literal, and its `__repr__` never runs. Every
    element costs at least one character, so shared and cyclic structures end the walk early. Raises Refused: `not_literal`, `output_too_large`.
    """
    too_large = Refused("output_too_large", f"the output is longer than {longest} characters")
    stack: list[tuple[Any, int]] = [(value, 0)]
    size = 0
    while stack:
        item, depth = stack.pop()
        kind = type(item)
        size += 1
        if kind is str or kind is bytes:
            size += len(item)
        elif kind is list or kind is tuple or kind is set or kind is dict:
            if size + len(item) > longest:
                raise too_large
            if depth == DEEPEST:
                raise Refused("not_literal", f"the output is nested deeper than {DEEPEST} levels")
            for part in item:
                stack.append((part, depth + 1))
            if kind is dict:
                for part in item.values():
                    stack.append((part, depth + 1))
        elif kind is int:
            if item.bit_length() > MOST_BITS:
                raise too_large
        elif kind is float:
            _finite(item)
        elif kind is complex:
            _finite(item.real)
            _finite(item.imag)
        elif item is not None and kind is not bool:
            raise Refused("not_literal", f"the output holds a value of type {class_name(kind)}")
        if size > longest:
            raise too_large
    try:
        text = repr(value)
    except ValueError:  # the program lowered the limit of int digits
        raise too_large from None
    if len(text) > longest:
        raise too_large
    return text


_name, _cut, _part = type.__dict__["__name__"].__get__, str.__getitem__, slice(80)  # a metaclass cannot stand in their way


def class_name(kind: type) -> str:
    """The first 80 characters of a class's name; the name may be an object of a class of the program's own, and stays unasked."""
    return _cut(_name(kind), _part)


def _finite(number: float) -> None:
    if number != number or number == INFINITY or number == -INFINITY:
        raise Refused("not_literal", "the output holds nan or an infinity")
