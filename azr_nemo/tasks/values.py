"""What an input may say where whoever writes it is paid for what comes out: values written out, and nothing that finds them.

`next(i for i in range(5000) if f(i) == 340)` is one call of `f` as well, and one such template would answer every task whose inputs are few. A list
of what is forbidden has holes, so this is a grammar of what is allowed, all else is refused:

    value     a constant; a list, tuple, set or dict of values; a number or text made by operators; a call of what makes a value, `set([1])`,
              `'a b'.split()`, `dict.fromkeys('ab', 0)`; `[value for _ in range(3)]`, which is the same value again and again; a lambda
    number    constants under + - * / // % ** << >> & | ^ ~; `float('inf')`
    text      texts, lists and tuples under + and *

A lambda is a value as well: programs take functions. Only the program can call it, and its body neither loops nor names anything but its own
parameters and pure builtins. So nothing is tried and then chosen: no comprehension with a variable in it, no condition, comparison or subscript
outside a lambda, no function that picks (`min`, `next`, `filter`), no name of the program's. Operators and methods are counted, so that a search
cannot be written out candidate by candidate either.
"""

import ast

from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed, scopes
from azr_nemo.tasks.program import one_call
from azr_nemo.tasks.task import Refusal

OPERATIONS = 12  # operators and methods of an answer outside lambdas; to try one candidate on a program of one operator costs five

CONSTRUCTORS = frozenset(
    "abs bool bytearray bytes chr complex dict enumerate float frozenset int iter list ord range reversed round set sorted str tuple zip".split()
)
NUMBERS = frozenset({"float", "int", "complex"})
SEQUENCES = frozenset({"list", "tuple", "str", "bytes", "bytearray", "chr", "sorted"})
# Classes of values from modules, by their names: a program must import one from its own module to have it.
IMPORTED = {
    "Counter": "collections", "OrderedDict": "collections", "defaultdict": "collections", "deque": "collections",
    "Decimal": "decimal", "Fraction": "fractions", "date": "datetime", "datetime": "datetime", "time": "datetime", "timedelta": "datetime",
}  # fmt: skip
CLASS_METHODS = frozenset({
    ("dict", "fromkeys"), ("bytes", "fromhex"), ("bytearray", "fromhex"), ("float", "fromhex"), ("int", "from_bytes"), ("str", "maketrans"),
})  # fmt: skip
TEXT_METHODS = frozenset(
    "capitalize casefold center decode encode expandtabs join ljust lower lstrip replace rjust rsplit rstrip split splitlines strip swapcase title "
    "upper zfill".split()
)
ARITHMETIC = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift, ast.BitAnd, ast.BitOr, ast.BitXor,
)  # fmt: skip
SIGNS = (ast.USub, ast.UAdd, ast.Invert)
IN_LAMBDAS = CONSTRUCTORS | {"all", "any", "divmod", "len", "max", "min", "pow", "sum"}
# What a lambda's body may be built of; names, calls and attributes are looked at one by one.
LAMBDA_NODES = (
    ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice,
    ast.Name, ast.Load, ast.Call, ast.Attribute, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


class _NotAValue(Exception):
    """A part of the text that is no value: the sentence that says so."""


def value_arguments(text: str, program: str) -> ast.Call | Refusal:
    """The call `f(<text>)` when every argument is a value, as the module says, whatever program `f` is of; see `one_call` for what else is refused.
    program: what binds names, so that none of them is taken for a builtin's."""
    call = one_call(text)
    if isinstance(call, Refusal):
        return call
    if not call.args and not call.keywords:
        return Refusal("no_arguments", "the input is empty")
    try:
        reader = _Values(program)
        for part in (*call.args, *(keyword.value for keyword in call.keywords if keyword.arg)):
            reader.value(part)
        if any(keyword.arg is None for keyword in call.keywords):
            raise _NotAValue("** is not allowed in an input")
    except _NotAValue as error:
        return Refusal("not_a_value", str(error))
    except PARSE_ERRORS as error:
        return Refusal("syntax", f"the program does not parse: {error.__class__.__name__}")
    return call


class _Values:
    """Reads expressions by the grammar; raises _NotAValue for what is none of it."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.operations = 0
        self._bound: set[str] | None = None

    def value(self, node: ast.expr) -> None:
        match node:
            case ast.Constant():
                pass
            case ast.List() | ast.Tuple() | ast.Set():
                self._all(node.elts)
            case ast.Dict():
                self._all([key for key in node.keys if key is not None] + node.values)
                if None in node.keys:
                    raise _NotAValue("** is not allowed in an input")
            case ast.UnaryOp():
                self._number(node)
            case ast.BinOp():
                self._made_by_operators(node)
            case ast.Call():
                self._made(node)
            case ast.ListComp():
                self._repeated(node)
            case ast.Lambda():
                self._function(node, frozenset())
            case ast.JoinedStr() if all(isinstance(part, ast.Constant) for part in node.values):
                pass
            case _:
                raise _NotAValue(f"an input is a value, and {_words(node)} is none")

    def _all(self, nodes: list[ast.expr]) -> None:
        for node in nodes:
            self.value(node)

    def _count(self) -> None:
        self.operations += 1
        if self.operations > OPERATIONS:
            raise _NotAValue(f"an input has at most {OPERATIONS} operators and methods")

    def _made_by_operators(self, node: ast.BinOp) -> None:
        if _is_number(node):
            self._number(node)
        else:
            self._text(node)

    def _number(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=bool() | int() | float() | complex()):
                pass
            case ast.UnaryOp(op=op, operand=operand) if isinstance(op, SIGNS):
                if not isinstance(operand, ast.Constant):
                    self._count()
                self._number(operand)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, ARITHMETIC):
                if not _is_complex_literal(node):
                    self._count()
                self._number(left)
                self._number(right)
            case ast.Call(func=ast.Name(id=name)) if name in NUMBERS:
                self._made(node)
            case _:
                raise _NotAValue(f"{_words(node)} is no number that an operator may take")

    def _text(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=str() | bytes()) | ast.List() | ast.Tuple() | ast.JoinedStr() | ast.ListComp():
                self.value(node)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                self._count()
                self._text(left)
                self._text(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                self._count()
                first, second = (left, right) if _is_number(right) else (right, left)
                self._text(first)
                self._number(second)
            case ast.Call(func=ast.Name(id=name)) if name in SEQUENCES:
                self._made(node)
            case ast.Call(func=ast.Attribute()):
                self._made(node)
            case _:
                raise _NotAValue(f"{_words(node)} is no text or list that an operator or a method may take")

    def _made(self, node: ast.Call) -> None:
        """A call of a class or function that makes a value, or of a method of a text."""
        match node.func:
            case ast.Name(id=name) if name in CONSTRUCTORS | IMPORTED.keys():
                self._unbound(name)
                if name == "iter" and len(node.args) != 1:
                    raise _NotAValue("iter takes one value in an input")
                if node.keywords and name != "dict" and name not in IMPORTED:
                    raise _NotAValue(f"{name} takes no keywords in an input")
            case ast.Attribute(value=ast.Name(id=name), attr=method) if (name, method) in CLASS_METHODS and not node.keywords:
                self._unbound(name)
            case ast.Attribute(value=base, attr=method) if method in TEXT_METHODS and not node.keywords:
                self._count()
                self._text(base)
            case _:
                raise _NotAValue(f"an input may not call {_words(node.func)}")
        for keyword in node.keywords:
            if keyword.arg is None:
                raise _NotAValue("** is not allowed in an input")
            self.value(keyword.value)
        self._all(node.args)

    def _repeated(self, node: ast.ListComp) -> None:
        """`[value for _ in range(n)]`: as a value holds no name, every round gives the same."""
        (first, *others) = node.generators
        match first:
            case ast.comprehension(
                target=ast.Name(), iter=ast.Call(func=ast.Name(id="range"), args=counts, keywords=[]), ifs=[], is_async=0
            ):
                self._unbound("range")
                self._count()
                for count in counts:
                    self._number(count)
            case _:
                raise _NotAValue("a comprehension in an input may only repeat a value, as [0 for _ in range(3)] does")
        if others:
            raise _NotAValue("a comprehension in an input has one `for`")
        self.value(node.elt)

    def _function(self, node: ast.Lambda, outside: frozenset[str]) -> None:
        spec = node.args
        self._all([default for default in (*spec.defaults, *spec.kw_defaults) if default is not None])
        parameters = [*spec.posonlyargs, *spec.args, spec.vararg, *spec.kwonlyargs, spec.kwarg]
        known = outside | {parameter.arg for parameter in parameters if parameter is not None}
        stack: list[ast.AST] = [node.body]
        while stack:
            part = stack.pop()
            if isinstance(part, ast.Lambda):  # returned: nothing here can call it
                self._function(part, known)
                continue
            self._in_function(part, known)
            stack += [child for child in ast.iter_child_nodes(part) if not (isinstance(part, ast.Call) and child is part.func)]
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
                stack.append(part.func.value)

    def _in_function(self, part: ast.AST, known: frozenset[str]) -> None:
        match part:
            case ast.Call(func=ast.Name(id=name)) if name in IN_LAMBDAS and name not in known:
                self._unbound(name)
                if (
                    part.keywords
                    or any(isinstance(argument, ast.Lambda) for argument in part.args)
                    or (name == "iter" and len(part.args) != 1)
                ):
                    raise _NotAValue(f"a lambda's {name} takes values alone in an input")
            case ast.Call(func=ast.Attribute(attr=method)) if not method.startswith("_") and not part.keywords:
                pass
            case ast.Call():
                raise _NotAValue(f"a lambda in an input may not call {_words(part.func)}")
            case ast.Name(id=name) if name not in known:
                raise _NotAValue(f"a lambda in an input may not use the name {name}")
            case ast.Attribute():
                raise _NotAValue(f"a lambda in an input may not use the attribute {part.attr}")
            case ast.Dict() if None in part.keys:
                raise _NotAValue("** is not allowed in an input")
            case ast.AST() if not isinstance(part, LAMBDA_NODES):
                raise _NotAValue(f"a lambda in an input may not contain {_words(part)}")

    def _unbound(self, name: str) -> None:
        """Refuses a name that the program gives a meaning of its own: `def set(x): ...` would search under a builtin's name."""
        if self._bound is None:
            self._bound = _bindings(self.program)
        if name in self._bound:
            raise _NotAValue(f"the program gives {name} a meaning of its own, so an input may not use it")


def _is_number(node: ast.expr) -> bool:
    """Whether an operand is a number by its form, so that `*` and `+` mean arithmetic."""
    match node:
        case ast.Constant(value=bool() | int() | float() | complex()) | ast.UnaryOp():
            return True
        case ast.BinOp(left=left, op=op, right=right):
            return not isinstance(op, ast.Add | ast.Mult) or (_is_number(left) and _is_number(right))
        case ast.Call(func=ast.Name(id=name)):
            return name in NUMBERS
    return False


def _is_complex_literal(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.Add | ast.Sub) and isinstance(node.right, ast.Constant) and type(node.right.value) is complex


def _bindings(program: str) -> set[str]:
    """The names that a program binds at its top, also from within functions; not those that it imports as the module has them. A class that the
    program changes is bound as well."""
    bound, imported = set(), set()
    for table in scopes(program):
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_assigned():
                bound.add(symbol.get_name())
            elif symbol.is_global() and symbol.is_imported():
                imported.add(symbol.get_name())
    for node in ast.walk(parsed(program)):
        if isinstance(node, ast.ImportFrom):
            imported -= {
                alias.name for alias in node.names if IMPORTED.get(alias.name) == node.module and alias.asname in (None, alias.name)
            }
        if isinstance(node, ast.Attribute):
            if isinstance(node.ctx, ast.Store | ast.Del) and isinstance(node.value, ast.Name):
                bound.add(node.value.id)
            if node.attr == "__setattr__":
                bound |= IMPORTED.keys()
    return bound | imported


def _words(node: ast.AST) -> str:
    """How a part of an expression is called in a sentence."""
    match node:
        case ast.Name(id=name):
            return f"the name {name}"
        case ast.Attribute(attr=name):
            return f"the attribute {name}"
        case ast.Call(func=ast.Name(id=name)):
            return f"a call of {name}"
    return node.__class__.__name__
