"""Reads an argument text as exactly one call of `f`, and decides what an argument may say.

An answer of the solver is such a text, and the solver knows the value it has to reach. Were its expression free to run statements of its own it
could write that value on the result pipe, or replace `f.__code__`, without the program ever computing it. So arguments are values and pure
expressions: no attribute beyond the methods of built-in types, no name beyond pure built-ins, the program's own functions, classes and literals,
and what the expression itself binds. The grader makes its own check on the text; this one holds whoever asks.
"""

import ast
import builtins

# The program may replace names in `builtins`; bound here, these stay what they were.
from builtins import Exception, bytes, compile, complex, dict, dir, float, frozenset, getattr, int, isinstance, list, set, str, tuple, type  # noqa: UP029
from types import CodeType, FunctionType
from typing import Any

from .literal import Refused, literal_text

PROGRAM = "program"  # the name of the module that a program is executed in

PURE = frozenset(
    "abs all any ascii bin bool bytearray bytes chr complex dict divmod enumerate filter float frozenset hex int iter len list map max min "
    "next oct ord pow range repr reversed round set slice sorted str sum tuple zip".split()
)
# What changes an object: not beside a name of the program's, whose function may hand out an object that the program keeps.
CHANGING = frozenset(
    "add append clear difference_update discard extend insert intersection_update pop popitem remove reverse setdefault sort "
    "symmetric_difference_update update".split()
)
METHODS = frozenset(name for kind in (str, bytes, list, tuple, dict, set, int, float, complex) for name in dir(kind) if name[0] != "_")
METHODS -= {"format", "format_map"}  # they read attributes named in their text
BUILTINS = frozenset(dir(builtins))
VALUE_MODULES = frozenset({PROGRAM, "collections", "fractions", "decimal", "datetime"})
NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Store, ast.keyword, ast.Starred, ast.Constant, ast.JoinedStr, ast.FormattedValue,
    ast.List, ast.Tuple, ast.Dict, ast.Set, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice, ast.Attribute,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Lambda, ast.arguments, ast.arg,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
LARGEST = 100_000  # characters of the program's data that an argument may name
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def compile_call(text: str, namespace: dict[str, Any]) -> CodeType:
    """The code of `f(<text>)`, to be evaluated in the executed program's namespace.

    Raises Refused: `syntax` when the text does not make exactly one call of f, `forbidden` when an argument says what arguments may not.
    """
    try:
        tree: Any = compile(f"f({text}\n)", "<call>", "eval", ast.PyCF_ONLY_AST, dont_inherit=True)
    except Exception as error:  # SyntaxError, ValueError for null bytes, RecursionError and MemoryError for nesting, UnicodeError
        raise Refused("syntax", f"the argument text does not parse: {error}") from None
    call = tree.body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "f"):
        raise Refused("syntax", "the argument text must make exactly one call of f")
    _check(tree, namespace)
    try:
        return compile(tree, "<call>", "eval", dont_inherit=True)
    except Exception as error:
        raise Refused("syntax", f"the argument text does not compile: {error}") from None


def _check(tree: Any, namespace: dict[str, Any]) -> None:
    changing = programs = ""
    for node, bound in _nodes(tree):
        if not isinstance(node, NODES):
            raise Refused("forbidden", f"an argument may not contain {type(node).__name__}")
        if isinstance(node, ast.Attribute) and node.attr not in METHODS:
            raise Refused("forbidden", f"an argument may not use the attribute {node.attr}")
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):  # `for x[0] in`
            raise Refused("forbidden", "an argument may bind names only")
        if isinstance(node, ast.Name) and node.id not in bound and node.id not in PURE and not _harmless(node.id, namespace):
            raise Refused("forbidden", f"an argument may not use the name {node.id}")
        if isinstance(node, ast.Attribute) and node.attr in CHANGING:
            changing = node.attr
        if isinstance(node, ast.Name) and node.id not in bound and node.id in namespace and node is not tree.body.func:
            programs = node.id
    if changing and programs:
        raise Refused("forbidden", f"an argument may not use the attribute {changing} beside {programs}")


def _nodes(tree: ast.AST) -> list[tuple[ast.AST, frozenset[str]]]:
    """The tree's nodes, root first, each with the names that lambdas and comprehensions around it bind: a name bound in one place is the
    program's, or a builtin, in another."""
    nodes: list[tuple[ast.AST, frozenset[str]]] = [(tree, frozenset())]
    outside: dict[ast.AST, frozenset[str]] = {}  # parts of a scope that are evaluated around it
    for node, bound in nodes:
        inner = bound
        if isinstance(node, ast.Lambda):
            outside[node.args] = bound
            inner = bound | _bound_by(node.args)
        elif isinstance(node, COMPREHENSIONS):
            outside[node.generators[0].iter] = bound
            inner = bound.union(*(_bound_by(generator.target) for generator in node.generators))
        nodes += [(part, outside.get(part, inner)) for part in _parts(node)]
    return nodes


def _bound_by(part: ast.AST) -> set[str]:
    """The names of a lambda's arguments or of a comprehension's target."""
    if isinstance(part, ast.arguments):
        arguments = [*part.posonlyargs, *part.args, part.vararg, *part.kwonlyargs, part.kwarg]
        return {argument.arg for argument in arguments if argument is not None}
    parts = [part]
    for one in parts:
        if isinstance(one, (ast.Tuple, ast.List, ast.Starred)):
            parts += _parts(one)
    return {one.id for one in parts if isinstance(one, ast.Name)}


def _parts(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        found += [part for part in (value if type(value) is list else [value]) if isinstance(part, ast.AST)]
    return found


def _harmless(name: str, namespace: dict[str, Any]) -> bool:
    """Whether a name stands for one of the program's functions, for a class of its own or of a module of values, for data that is a literal through
    and through (a list may hold what is no data), or for nothing at all."""
    if name not in namespace:
        return name not in BUILTINS
    value = namespace[name]
    if type(value) is FunctionType:
        return value.__globals__ is namespace
    if isinstance(value, type):
        return value.__module__ in VALUE_MODULES
    try:
        literal_text(value, LARGEST)
    except Refused:
        return False
    return True
