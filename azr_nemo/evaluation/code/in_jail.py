"""Runs in the jail beside a solution: calls it, and writes what it returned as text that `ast.literal_eval` reads back outside.

Its source is a part of every program that is graded (see `solution.program`), so it imports nothing of this project. What it writes may be forged by
the solution; expected values are never here to be copied.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

LONGEST = 50_000  # characters of a text that is handed out whole; of a longer one its hash
PLAIN_DIGITS = 10_000  # bits of an int above which it is written in hexadecimal: Python refuses to read longer decimals


def load(source: str, path: str, before: str = "") -> tuple[Callable[..., Any], dict[str, Any]]:
    """Executes a solution in a namespace of its own; what stands at `path` there ("name", or "Class.method" of a new object), and the namespace.
    before: what is executed there first."""
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(compile(before, "<before>", "exec", dont_inherit=True), namespace)  # noqa: S102  in the jail
    exec(compile(source, "<solution>", "exec", dont_inherit=True), namespace)  # noqa: S102  in the jail
    name, _, method = path.partition(".")
    found = namespace[name]
    return (getattr(found(), method) if method else found), namespace


def graded(source: str, path: str, view: str, before: str = "") -> Callable[..., str]:
    """A function that calls the solution and returns `text` of what it returned. view: what is compared of it, see `seen`; before: see `load`."""
    solution, _ = load(source, path, before)
    return lambda *arguments: text(seen(solution(*arguments), view))


def seen(value: Any, view: str) -> Any:
    """value: as it is. set: its elements. not_none: a bool as it is, of anything else whether it is not None. any: nothing of it. row: a tuple counts
    as a list."""
    if view == "set":
        return set(value)
    if view == "not_none":
        return value if isinstance(value, bool) else value is not None
    if view == "row" and isinstance(value, tuple):
        return list(value)
    return None if view == "any" else value


def recorded(source: str, path: str, test: str) -> Callable[[], list[str]]:
    """A function that runs the test's `check` on the solution and returns the argument texts of the calls that it made, in order."""
    solution, namespace = load(source, path)

    def run() -> list[str]:
        calls: list[str] = []

        def candidate(*arguments: Any) -> Any:
            calls.append(", ".join(literal(each, argument=True) for each in arguments))
            return solution(*arguments)

        # A namespace of its own: the test may call the solution by its name, and the solution itself by recursion, which is no call of the test's.
        _check({**namespace, path: candidate}, test, candidate)
        return calls

    return run


def replayed(source: str, path: str, test: str) -> Callable[[list[Any]], bool]:
    """A function that runs `check` on a candidate that returns the given values, one a call. source: the problem's own text, without a solution."""
    _, namespace = load(source, path)

    def run(values: list[Any]) -> bool:
        left = iter(values)

        def candidate(*arguments: Any) -> Any:
            return next(left)

        _check({**namespace, path: candidate}, test, candidate)
        return True

    return run


def _check(namespace: dict[str, Any], test: str, candidate: Callable[..., Any]) -> None:
    exec(compile(test, "<test>", "exec", dont_inherit=True), namespace)  # noqa: S102  in the jail
    random.seed(0)  # some tests draw: all must draw the same
    namespace["check"](candidate)


class Refused(ValueError):
    """The value has no text."""


def literal(value: Any, argument: bool = False) -> str:
    """The value as a literal, infinities as 1e999. argument: dicts keep their order, for it may matter to who is called; else they are sorted, as
    equal ones must have one hash.

    An object of a subclass counts as what it extends: a Counter is a dict, an IntEnum an int; a frozenset is a set; a Fraction or Decimal that a float
    states exactly is that number. Raises Refused for anything else, and for nan, which equals nothing.
    """
    return "".join(_parts(value, argument))


def text(value: Any) -> str:
    """`shortened(literal(value))`, without holding a long literal in memory. Raises Refused."""
    parts: list[str] = []
    size, digest = 0, None
    for part in _parts(value, False):
        parts.append(part)
        size += len(part)
        if size > LONGEST:
            digest = digest or hashlib.sha256()
            digest.update("".join(parts).encode("utf-8", "surrogatepass"))
            parts.clear()
    return _hash(digest) if digest else "".join(parts)


def shortened(whole: str) -> str:
    """A literal, or "sha256:..." of one that is longer than LONGEST."""
    return whole if len(whole) <= LONGEST else _hash(hashlib.sha256(whole.encode("utf-8", "surrogatepass")))


def _hash(digest: Any) -> str:
    return f"sha256:{digest.hexdigest()}"


def _parts(value: Any, argument: bool) -> Iterator[str]:
    if isinstance(value, list):
        yield from _row("[", list.__iter__(value), "]", argument)
    elif isinstance(value, tuple):
        yield from _row("(", tuple.__iter__(value), ",)" if tuple.__len__(value) == 1 else ")", argument)
    elif isinstance(value, dict):
        pairs = [f"{''.join(_parts(key, argument))}: {''.join(_parts(each, argument))}" for key, each in dict.items(value)]
        yield f"{{{', '.join(pairs if argument else sorted(pairs))}}}"
    elif isinstance(value, (set, frozenset)):
        elements = sorted("".join(_parts(each, argument)) for each in value)
        yield f"{{{', '.join(elements)}}}" if elements else "set()"
    else:
        yield _atom(value)


def _row(opening: str, elements: Iterable[Any], closing: str, argument: bool) -> Iterator[str]:
    yield opening
    for index, element in enumerate(elements):
        if index:
            yield ", "
        yield from _parts(element, argument)
    yield closing


def _atom(value: Any) -> str:
    if value is None or value is True or value is False:
        return repr(value)
    if isinstance(value, str):
        return str.__repr__(value)
    if isinstance(value, int):
        return hex(int.__index__(value)) if int.bit_length(value) > PLAIN_DIGITS else int.__repr__(value)
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, complex):
        if not (math.isfinite(value.real) and math.isfinite(value.imag)):
            raise Refused("a complex number that is not finite")
        return complex.__repr__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes.__repr__(bytes(value))
    if type(value).__name__ in ("Fraction", "Decimal"):
        number = int(value) if int(value) == value else float(value)
        if number == value:
            return _atom(number)
    raise Refused(f"a value of type {type(value).__name__}")


def _real(value: float) -> str:
    if value != value:
        raise Refused("nan")
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return float.__repr__(value)
