"""Parsing text that may be anything, from several threads."""

import ast
from typing import Any

# Whatever is wrong with a text: SyntaxError, null bytes and numbers too long to write, nesting too deep, lone surrogates.
PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
ATTEMPTS = 50


def parsed(text: str, mode: str = "exec") -> Any:
    """The syntax tree of a text. Raises one of PARSE_ERRORS.

    CPython before 3.11.8 counts the depth of all trees in one place: when another thread parses meanwhile, `ast.parse` may raise SystemError for good
    text (gh-106905). It is then asked again.
    """
    for _ in range(ATTEMPTS):
        try:
            return ast.parse(text, mode=mode)
        except SystemError:
            continue
    raise ValueError("this text cannot be parsed while others are")
