"""Reading and comparing literals that a model wrote, without evaluating anything."""

import ast
from typing import Any

from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed

MAX_LITERAL = 20000  # characters


class NotLiteral(ValueError):
    """The text is not a Python literal."""


def read_literal(text: str, longest: int = MAX_LITERAL) -> Any:
    """The value of a literal of at most `longest` characters. Raises NotLiteral, whatever is wrong with the text (also its depth)."""
    if len(text) > longest:
        raise NotLiteral("too long")
    try:
        return ast.literal_eval(parsed(text.strip(), "eval"))
    except (*PARSE_ERRORS, TypeError) as error:
        raise NotLiteral(error.__class__.__name__) from None


def same_literal(answer: str, gold: str) -> bool:
    """Whether two literals are equal by Python's `==` (so 1 == True == 1.0). False when either is no literal or they nest too deeply."""
    try:
        return bool(read_literal(answer) == read_literal(gold))
    except (NotLiteral, RecursionError):
        return False
