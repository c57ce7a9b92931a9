"""Makes of a response the program that defines a problem's function, as EvalPlus' sanitizer does (evalplus/sanitize.py): text that is not Python is
left out, and so is code that the function does not need, such as usage examples, tests, and what reads `input()`.

EvalPlus takes the longest run of lines that parses, and of it the imports and definitions that the function reaches. Here a response is taken by its
fences: the last block that defines the function counts, and what it names and lacks is taken from the other blocks. What changes a needed object
(`table[0] = 1`, a loop that fills it) is needed too.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import dedent, indent

from azr_nemo.evaluation.code.code_blocks import answer_in, code_in, defined
from azr_nemo.tasks.fences import fences
from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed
from azr_nemo.tasks.program import free_names

MOST_PARSED = 1 << 20  # characters, over all attempts to tell the code in a text from what is none: about a second
GOES_ON = re.compile(r"\s|$|#|[)\]}]|(?:else|elif|except|finally)\b[^:]*:")  # a line that belongs to the statement before it
UNFINISHED = ("unterminated triple-quoted", "was never closed")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def sanitized(response: str, prompt: str, entry_point: str) -> str:
    """The program that a response makes of a problem. One that nowhere defines the entry point goes on where the prompt ends: it is a body, or what
    stands in the place of one. It may be anything: whether it parses is for the caller to see."""
    answer = answer_in(response)
    blocks = [block.text for block in fences(answer) if block.text.strip()]
    for texts in (blocks, [answer]):
        found = [_pieces(text) for text in texts]
        if whole := [place for place, pieces in enumerate(found) if _is_whole(pieces, entry_point)]:
            others = [piece for place, pieces in enumerate(found) if place != whole[-1] for piece in pieces]
            return _needed(found[whole[-1]], others, entry_point)
    for text in [*reversed(blocks), answer]:
        for body in (text, indent(dedent(text), "    "), f"    {text.lstrip()}"):
            pieces = _pieces(f"{prompt.rstrip()}\n{body}")
            if _is_whole(pieces, entry_point):
                return _needed(pieces, [], entry_point)
    code = code_in(response)
    return code if entry_point in defined(code) else f"{prompt.rstrip()}\n{code}"


@dataclass(frozen=True)
class Piece:
    """Statements of a program's top level that share lines, mostly one. needs: the names that it reads and does not bind."""

    text: str
    nodes: Sequence[ast.stmt]
    needs: frozenset[str]

    @cached_property
    def defines(self) -> frozenset[str]:
        return frozenset(name for node in self.nodes for name in _defined_by(node))

    @cached_property
    def binds(self) -> frozenset[str]:
        """The names that it defines, and those of objects that it may change."""
        changed = (_changed_by(part) for node in self.nodes for part in _run_with(node))
        return self.defines | {name for name in changed if name}

    @property
    def imports(self) -> bool:
        return all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in self.nodes)

    @cached_property
    def reads_input(self) -> bool:
        return any(
            isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "input"
            for node in self.nodes
            for part in _run_with(node, COMPREHENSIONS)
        )

    @cached_property
    def holds_always(self) -> bool:
        """Whether it matters to a function that does not name it."""
        return any(
            (isinstance(node, ast.ImportFrom) and (node.module == "__future__" or node.names[0].name == "*"))
            or (isinstance(node, ast.Expr) and "setrecursionlimit(" in self.text)
            for node in self.nodes
        )


def _needed(pieces: Sequence[Piece], others: Sequence[Piece], entry_point: str) -> str:
    """The pieces that the entry point needs, as a program. others: where the names are looked for that the pieces do not bind."""
    if _is_whole(pieces, entry_point):
        pieces = [piece for piece in pieces if not (piece.imports and entry_point in piece.defines)]
    own = frozenset().union(*(piece.binds for piece in pieces))
    candidates = [(piece, piece.binds - own) for piece in others] + [(piece, piece.binds) for piece in pieces]
    kept = {piece for piece in pieces if piece.holds_always}
    names = {entry_point}.union(*(piece.needs for piece in kept))
    size = -1
    while size < len(kept):
        size = len(kept)
        for piece, binds in candidates:
            if piece not in kept and not binds.isdisjoint(names) and not piece.reads_input:
                kept.add(piece)
                names |= piece.needs
    ordered = [piece.text for piece, _ in candidates if piece in kept]
    first = [text for text in ordered if text.startswith("from __future__ ")]
    return "\n".join([*dict.fromkeys(first), *(text for text in ordered if text not in first)]) + "\n"


def _pieces(text: str) -> list[Piece]:
    """The statements of a text, in order, without the lines that are none."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        return _split(text, parsed(text))
    except PARSE_ERRORS:
        pass
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if not GOES_ON.match(line) and not (number and lines[number - 1].startswith("@"))]
    ends = [*starts[1:], len(lines)]
    pieces: list[Piece] = []
    budget, place = MOST_PARSED, 0
    while place < len(starts):
        following = place + 1
        for last in range(place, len(starts)):
            part = "\n".join(lines[starts[place] : ends[last]])
            budget -= len(part)
            try:
                pieces += _split(part, parsed(part))
                following = last + 1
                break
            except PARSE_ERRORS as error:
                if budget < 0 or not any(words in str(error) for words in UNFINISHED):
                    break
        place = following
    return pieces


def _split(text: str, tree: ast.Module) -> list[Piece]:
    """The pieces of a text that parses. Raises one of PARSE_ERRORS, as not all that parses compiles."""
    lines = text.split("\n")
    groups: list[tuple[int, int, list[ast.stmt]]] = []
    for node in tree.body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
        last = node.end_lineno or first
        if groups and first <= groups[-1][1]:
            groups[-1] = (groups[-1][0], last, [*groups[-1][2], node])
        else:
            groups.append((first, last, [node]))
    found = []
    for first, last, nodes in groups:
        part = "\n".join(lines[first - 1 : last])
        found.append(Piece(part, tuple(nodes), frozenset(free_names(part))))
    return found


def _is_whole(pieces: Sequence[Piece], entry_point: str) -> bool:
    """Whether the entry point is defined, and by more than a signature or an import, which stand in examples of its use."""
    return any(_gives(node, entry_point) for piece in pieces for node in piece.nodes if entry_point in _defined_by(node))


def _gives(node: ast.stmt, entry_point: str) -> bool:
    parts = list(ast.walk(node))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return any(isinstance(part, (ast.Return, ast.Yield, ast.YieldFrom)) for part in parts)
    reads_itself = any(isinstance(part, ast.Name) and part.id == entry_point and isinstance(part.ctx, ast.Load) for part in parts)
    return not reads_itself and not isinstance(node, (ast.Import, ast.ImportFrom))


def _run_with(node: ast.AST, also: tuple[type[ast.AST], ...] = ()) -> Iterator[ast.AST]:
    """A statement and those of its parts that are executed with it in its own scope; `also`: kinds of inner scopes to look into."""
    todo = [node]
    for part in todo:
        yield part
        if not isinstance(part, (*FUNCTIONS, ast.ClassDef, *(kind for kind in COMPREHENSIONS if kind not in also))):
            todo.extend(ast.iter_child_nodes(part))


def _defined_by(node: ast.AST) -> set[str]:
    """The names that a statement binds in its own scope."""
    names: set[str] = set()
    for part in _run_with(node):
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or (isinstance(part, ast.ExceptHandler) and part.name):
            names.add(part.name or "")
        elif isinstance(part, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in part.names}
        elif isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            names.add(part.id)
    return names


def _changed_by(part: ast.AST) -> str:
    """The name of the object that a part of a statement may change: whose method is called and the result not used, or which is assigned into."""
    if isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) and isinstance(part.value.func, ast.Attribute):
        inner: ast.AST = part.value.func
    elif isinstance(part, (ast.Attribute, ast.Subscript)) and not isinstance(part.ctx, ast.Load):
        inner = part
    else:
        return ""
    while isinstance(inner, (ast.Attribute, ast.Subscript, ast.Call)):
        inner = inner.func if isinstance(inner, ast.Call) else inner.value
    return inner.id if isinstance(inner, ast.Name) else ""
