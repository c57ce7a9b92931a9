"""How far a program is from the references its proposer saw, so that copying them pays less.

The published code compares the characters of pretty-printed syntax trees with difflib, quadratic and swayed by how long its names for node types
are. Here the trees' tokens are compared: node types, names, operators and constants, in source order.
"""

import ast
from collections.abc import Sequence

from azr_nemo.rewards.intrinsic.component import History
from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed
from azr_nemo.tasks.task import Task


def edit_distance(task: Task, references: Sequence[Task], history: History) -> float:
    """Mean over the references of the normalised insertion-deletion distance between the programs' tokens, within [0, 1]: 0 for equal
    programs, whatever their layout and comments. 1 without references."""
    from rapidfuzz.distance import Indel

    own = _tokens(task.program)
    distances = [Indel.normalized_distance(own, _tokens(reference.program)) for reference in references]
    return sum(distances) / len(distances) if distances else 1.0


def _tokens(program: str) -> list[str]:
    try:
        tree = parsed(program, "exec")
    except PARSE_ERRORS:
        return [program]
    tokens: list[str] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        tokens.append(type(node).__name__)
        below: list[ast.AST] = []
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "type_comment", "kind"):
                continue
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    below.append(part)
                elif part is not None:
                    tokens.append(f"{name}={_text(part)}")
        stack.extend(reversed(below))
    return tokens


def _text(constant: object) -> str:
    """A name or a constant; a number too long to write in decimal, which a program may state in hexadecimal, so."""
    try:
        return repr(constant)
    except ValueError:
        return f"{constant:#x}"
