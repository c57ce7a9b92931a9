"""Text of which some is a template's own and the rest is data, so that a special token can come from a template alone.

A program or a message may spell `<|im_end|>`. Put into a prompt it has to stay those ten characters, while the same characters in a chat template
are the token. So whoever writes a prompt says which spans are the template's: a `Marked` is a str that remembers them, and whoever encodes
(rollout/encoding.py) makes special tokens of nothing else. A plain str, and whatever a method of str gives back, is all data: what is forgotten errs
on the safe side.

    template("<think>")                 all of it is the template's
    joined(template("Q: "), question)   the question is data
    marked(value), read(text)           around what is inserted, and after the rendering, where a template engine puts the parts together
"""

import re
import secrets
from collections.abc import Iterable
from typing import Self

Span = tuple[int, int]  # start and end, in characters

_NONCE = secrets.token_hex(16)  # in no text that was written before this process began, and shown to nobody
_OPEN, _CLOSE = f"\x02{_NONCE}\x02", f"\x03{_NONCE}\x03"
_MARKS = re.compile(f"({_OPEN}|{_CLOSE})")


class Marked(str):
    """A text and the spans of it that are its template's, ascending and apart."""

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __new__(cls, text: str, spans: Iterable[Span]) -> Self:
        made = super().__new__(cls, text)
        made.spans = tuple(spans)
        return made

    def strip(self, chars: str | None = None, /) -> "Marked":
        """As of str; the spans stay where they are in the text."""
        start = len(self) - len(self.lstrip(chars))
        text = super().strip(chars)
        cut = ((max(first - start, 0), min(last - start, len(text))) for first, last in self.spans)
        return Marked(text, ((first, last) for first, last in cut if first < last))


def template(text: str) -> Marked:
    """A text that is all a template's."""
    return Marked(text, [(0, len(text))] if text else [])


def spans_of(text: str) -> tuple[Span, ...]:
    """The spans that are a template's: none of a plain str."""
    return text.spans if isinstance(text, Marked) else ()


def joined(*parts: str) -> Marked:
    """The parts one after another, each as it is marked."""
    spans: list[Span] = []
    length = 0
    for part in parts:
        for start, end in spans_of(part):
            start, end = start + length, end + length
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, end))
        length += len(part)
    return Marked("".join(parts), spans)


def pieces(text: str) -> list[tuple[str, bool]]:
    """The text cut where template and data meet: each piece, and whether it is the template's."""
    found: list[tuple[str, bool]] = []
    place = 0
    for start, end in spans_of(text):
        found += [(text[place:start], False), (text[start:end], True)]
        place = end
    return [(piece, own) for piece, own in [*found, (text[place:], False)] if piece]


def marked(value: object) -> str:
    """What is inserted into a template, with its data between marks that `read` takes out again. Spaces around stay outside, for a template may strip
    what it is given."""
    text = value if isinstance(value, str) else str(value)
    return "".join(piece if own else _around(piece) for piece, own in pieces(text))


def read(rendered: str) -> Marked:
    """What a template engine made of its own text and of `marked` values."""
    parts: list[str] = []
    depth = 0
    for part in _MARKS.split(rendered):
        if part in (_OPEN, _CLOSE):
            depth += 1 if part == _OPEN else -1
        elif part:
            parts.append(part if depth else template(part))
    return joined(*parts)


def _around(piece: str) -> str:
    bare = piece.strip()
    if not bare:
        return piece
    start = piece.index(bare)
    return f"{piece[:start]}{_OPEN}{bare}{_CLOSE}{piece[start + len(bare) :]}"
