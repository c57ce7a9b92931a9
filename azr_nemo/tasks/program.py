"""Static checks of programs and argument texts, their normal form, and their hashes. Nothing here runs a program.

The lists of names keep tasks clean and deterministic; they are not what keeps the host safe: the jail is.
"""

import ast
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence

from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed, scopes
from azr_nemo.tasks.task import Refusal

MAX_PROGRAM = 8000  # characters
MAX_ARGUMENTS = 4000
MAX_DEPTH = 100  # nested nodes; writing a tree back costs up to six Python frames a level, and the interpreter has a thousand
IMPORTS = (
    "abc", "bisect", "cmath", "collections", "copy", "dataclasses", "decimal", "enum", "fractions", "functools", "heapq", "itertools",
    "math", "numbers", "operator", "re", "statistics", "string", "textwrap", "typing",
)  # fmt: skip
BANNED = frozenset(
    "eval exec compile open input __import__ globals locals vars breakpoint exit quit help memoryview id hash setattr delattr "
    "__builtins__ __loader__ __spec__".split()
)
# `getattr` and its like are fair in a program, but in an input they reach the code of the very function that is called.
BANNED_IN_INPUTS = BANNED | {"getattr", "type", "object", "super", "print"}
BANNED_ATTRIBUTES = frozenset(
    "__subclasses__ __globals__ __builtins__ __code__ __closure__ __mro__ __bases__ __getattribute__ __reduce__ __reduce_ex__ "
    "__loader__ __spec__ gi_frame f_back f_globals f_locals f_builtins tb_frame".split()
)
# Modules whose members an argument text may name: they hold values and constructors, nothing that changes the program.
VALUE_MODULES = frozenset({"math", "cmath", "collections", "fractions", "decimal", "string"})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

# From Python 3.12 on, each "\d" in a text that a model wrote would be a line on the console.
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<unknown>")


def check(program: str, allowed_imports: Sequence[str] = ()) -> Refusal | None:
    """Why a text is not a program of a task, or None: it parses, has a top-level `def f` with a parameter and a `return` of its own,
    imports only allowed packages (empty: the default list) and uses no banned name. Helpers, classes and nested functions are welcome."""
    if len(program) > MAX_PROGRAM:
        return Refusal("too_long", f"the program has {len(program)} characters, at most {MAX_PROGRAM} are allowed")
    try:
        tree = parsed(program)
        taken = free_names(program)
    except PARSE_ERRORS as error:
        return Refusal("syntax", f"the program does not parse: {error.__class__.__name__}")
    if _depth(tree) > MAX_DEPTH:
        return Refusal("too_deep", f"the program nests more than {MAX_DEPTH} deep")
    return _check_entry(tree) or _check_names(list(ast.walk(tree)), taken, allowed_imports or IMPORTS)


def _depth(tree: ast.AST) -> int:
    """Levels of a tree, counted without recursion."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def free_names(program: str) -> set[str]:
    """The names that a program reads and binds in no scope that they are read from: what Python's builtins must supply. A parameter called
    `input` is none of them."""
    read, bound = set(), set()
    for table in scopes(program):
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                read.add(symbol.get_name())
            if symbol.is_global() and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
    return read - bound


def _check_entry(tree: ast.Module) -> Refusal | None:
    entries = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "f"]
    if not entries:
        return Refusal("no_entry", "there is no top-level function f")
    entry = entries[-1]
    spec = entry.args
    if not (spec.posonlyargs or spec.args or spec.kwonlyargs or spec.vararg or spec.kwarg):
        return Refusal("no_parameter", "f takes no parameter")
    own = list(_own_nodes(entry))
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        return Refusal("generator", "f is a generator")
    if not any(isinstance(node, ast.Return) and node.value is not None for node in own):
        return Refusal("no_return", "f returns nothing")
    return None


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions and classes inside it."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))


def _check_names(nodes: list[ast.AST], taken: set[str], allowed: Sequence[str]) -> Refusal | None:
    for node in nodes:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." if node.level else node.module or "."]
        else:
            modules = []
        for module in modules:
            if module.split(".")[0] not in allowed:
                return Refusal("import", f"{module} may not be imported")
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in BANNED_ATTRIBUTES or (isinstance(node, ast.Name) and name in BANNED and name in taken):
            return Refusal("banned_name", f"{name} may not be used")
    return None


def one_call(text: str) -> ast.Call | Refusal:
    """The call `f(<text>)`, when the text is exactly the arguments of one call and nothing else. What the text closes by itself (`2) or (1`)
    makes the whole something other than one call of `f`, and is refused. What the arguments say is not looked at."""
    if len(text) > MAX_ARGUMENTS:
        return Refusal("too_long", f"the input has {len(text)} characters, at most {MAX_ARGUMENTS} are allowed")
    try:
        call = parsed(f"f({text}\n)", "eval").body
    except PARSE_ERRORS as error:
        return Refusal("not_one_call", f"f(...) does not parse with this input: {error.__class__.__name__}")
    if _depth(call) > MAX_DEPTH:
        return Refusal("too_deep", f"the input nests more than {MAX_DEPTH} deep")
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "f" and call.func.col_offset == 0):
        return Refusal("not_one_call", "the input is not the arguments of one call of f")
    return call


def parse_arguments(text: str) -> ast.Call | Refusal:
    """The call `f(<text>)` of `one_call`, when it is given something and the arguments are expressions and keywords that cannot change the
    program: literals, operators, comprehensions and calls of builtins or of the program's own names. Attributes only of value modules (`math.pi`)
    and of literals (`"-".join(...)`); no assignment, no star-arguments, no `yield` or `await`. For the inputs of tasks that people wrote; what
    a model wrote is held to `values.value_arguments`.
    """
    call = one_call(text)
    if isinstance(call, Refusal):
        return call
    if not call.args and not call.keywords:
        return Refusal("no_arguments", "the input is empty")
    for node in ast.walk(call):
        if isinstance(node, ast.NamedExpr | ast.Starred | ast.Yield | ast.YieldFrom | ast.Await):
            return Refusal("not_one_call", f"{node.__class__.__name__} is not allowed in an input")
        if isinstance(node, ast.keyword) and node.arg is None:
            return Refusal("not_one_call", "** is not allowed in an input")
        if isinstance(node, ast.Name) and (node.id in BANNED_IN_INPUTS or (node.id.startswith("__") and node.id.endswith("__"))):
            return Refusal("banned_name", f"{node.id} may not be used in an input")
        if isinstance(node, ast.Attribute):
            base = node.value
            known = isinstance(base, ast.Constant) or (isinstance(base, ast.Name) and base.id in VALUE_MODULES)
            if not known or node.attr.startswith("_"):
                return Refusal("banned_name", f"the attribute {node.attr} may not be used in an input")
    return call


def canonical_input(text: str) -> str:
    """The argument text in normal form: `1,2` and `1, 2` are one input, as are `{1, 2}` and `{2, 1, 1}`; dicts keep their order, which a program can
    see. A text that is not one call is its own normal form."""
    call = one_call(text)
    try:
        return text.strip() if isinstance(call, Refusal) else ast.unparse(_SortedSets().visit(call))[2:-1]
    except PARSE_ERRORS:  # a number that Python reads in hexadecimal and is too long to write
        return text.strip()


class _SortedSets(ast.NodeTransformer):
    """Puts the elements of written sets in the order of their texts, each once."""

    def visit_Set(self, node: ast.Set) -> ast.Set:
        self.generic_visit(node)
        return ast.Set([element for _, element in sorted({ast.unparse(element): element for element in node.elts}.items())])


def normalise(program: str) -> str:
    """The program without comments, docstrings and layout. A text that does not parse is its own normal form."""
    try:
        return ast.unparse(_without_docstrings(parsed(program)))
    except PARSE_ERRORS:
        return program.strip()


def program_hash(program: str) -> str:
    """sha256 (hex) of the normal form."""
    return hashlib.sha256(normalise(program).encode("utf-8", "surrogatepass")).hexdigest()


def body_lines(program: str) -> int:
    """Lines of the normal form without imports and the `def f` line: how long a program is."""
    return max(1, sum(not line.startswith(("import ", "from ", "def f(")) for line in normalise(program).splitlines() if line.strip()))


def strip(program: str, comments: bool = False, globals: bool = False, prints: bool = False) -> str:
    """The program without comments and docstrings, without top-level statements other than imports, functions and classes, without
    `print(...)` statements; unchanged when it does not parse or nothing is asked for."""
    if not (comments or globals or prints):
        return program
    try:
        tree = parsed(program)
        if comments:
            tree = _without_docstrings(tree)
        if globals:
            kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            tree.body = [node for node in tree.body if isinstance(node, kept)]
        if prints:
            _filter_bodies(tree, _is_print)
        return ast.unparse(ast.fix_missing_locations(tree))
    except PARSE_ERRORS:
        return program


def with_entry(program: str) -> str:
    """The program with its last top-level function renamed `f`, when it has none of that name; unchanged when it does not parse, or where the
    name cannot be changed safely: something else has it too, or is called `f`."""
    try:
        tree = parsed(program)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        if not functions or any(node.name == "f" for node in functions):
            return program
        old = functions[-1].name
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == old:
                node.id = "f"
                continue
            if isinstance(node, ast.FunctionDef) and node.name == old and node in functions:
                node.name = "f"
                continue
            names = {getattr(node, field, None) for field in ("id", "name", "arg", "asname")}
            if {"f", old} & names.union(node.names if isinstance(node, ast.Global | ast.Nonlocal) else ()):
                return program
        return ast.unparse(tree)
    except PARSE_ERRORS:
        return program


def _is_print(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"


def _is_docstring(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    _filter_bodies(tree, _is_docstring)
    return tree


def _filter_bodies(tree: ast.AST, dropped: Callable[[ast.stmt], bool]) -> None:
    """Drops statements everywhere; a block that would be empty gets `pass`."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block:
                kept = [statement for statement in block if not dropped(statement)]
                needed = field == "body" and not isinstance(node, ast.Module)
                setattr(node, field, kept or ([ast.Pass()] if needed else []))


CLASSES = 8  # one program in eight is held out


def is_held_out(program: str) -> bool:
    """Whether the program is one that training must not see while held-out accuracy is measured (`eval.items`). Comments, docstrings and layout
    make no difference; names do."""
    return int(program_hash(program)[:8], 16) % CLASSES == 0
