"""Reading and comparing literals that a model wrote, without evaluating anything."""

import ast
import symtable
from collections.abc import Callable
from typing import Any, TypeVar

# Whatever is wrong with a text: SyntaxError, null bytes and numbers too long to write, nesting too deep, lone surrogates.
PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
ATTEMPTS = 50
T = TypeVar("T")


def parsed(text: str, mode: str = "exec") -> Any:
    """The syntax tree of a text. Raises one of PARSE_ERRORS."""
    return _again(lambda: ast.parse(text, mode=mode))


def scopes(program: str) -> list[symtable.SymbolTable]:
    """The symbol tables of all scopes of a program, the module's first. Raises one of PARSE_ERRORS."""
    tables = [_again(lambda: symtable.symtable(program, "<unknown>", "exec"))]
    for table in tables:
        tables.extend(table.get_children())
    return tables


def storable(text: str) -> str:
    """The text with half a surrogate pair, which no file, database or tokenizer takes, as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _again(parse: Callable[[], T]) -> T:
    """CPython before 3.11.8 counts the depth of all trees in one place: when another thread parses meanwhile, it may raise SystemError for good text
    (gh-106905). It is then asked again."""
    for _ in range(ATTEMPTS):
        try:
            return parse()
        except SystemError:
            continue
    raise ValueError("this text cannot be parsed while others are")


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
