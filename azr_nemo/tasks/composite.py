"""Composite programs: the proposer is given known programs as functions g_0, g_1, ... and writes an `f` that calls each of them.

What is run, stored and solved is one complete program: every import once, then the functions, then what was proposed, in normal form (without
comments). A program becomes the function g_i by a renaming of its syntax tree: `f` is called g_i wherever it is used, also by itself, and every
other top-level name, say `helper`, becomes g_i_helper, so that no two functions share a name. Nothing is evaluated.

The renaming is only done where each name means the same wherever it stands; `as_function` refuses the others. What a function computes stays the
same then, but for texts in which Python itself states a name, such as a dataclass's repr. The published code renames direct calls of `f` alone,
leaves helpers to collide, and renames the very programs that it keeps.
"""

import ast
import builtins
import re
import symtable
from collections.abc import Iterable, Iterator, Sequence

from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed, scopes
from azr_nemo.tasks.program import check, free_names, normalise
from azr_nemo.tasks.task import Refusal

GIVEN = re.compile(r"g_\d")  # how the names begin that only functions may have
OBSERVED = frozenset({"__name__", "__qualname__", "__doc__"})  # attributes that would tell of the renaming
BUILTINS = frozenset(dir(builtins))
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def as_function(program: str, number: int, beside: Sequence[str] = ()) -> str | Refusal:
    """The program as the function g_<number>, or why it cannot be one. beside: the functions that it will stand with."""
    try:
        tree = parsed(normalise(program))
        tables = scopes(normalise(program))
        others = [imported for text in beside for imported in _imports(parsed(text).body)]
        if refusal := _unrenamable(tree, tables) or _clash(_imports(tree.body), others):
            return refusal
        names = _bound(tables) - _imported(tree)
        _rename(tree, {name: f"g_{number}" if name == "f" else f"g_{number}_{name}" for name in names})
        return ast.unparse(tree)
    except PARSE_ERRORS as error:
        return Refusal("syntax", f"the program does not parse: {error.__class__.__name__}")


def prelude(functions: Sequence[str]) -> str:
    """The text that stands in front of what is proposed: the functions' imports, then the functions."""
    return ast.unparse(_joined([parsed(text) for text in functions]))


def complete(functions: Sequence[str], program: str, allowed_imports: Sequence[str] = ()) -> str | Refusal:
    """The complete program of functions, as `as_function` gives them, and a proposed program that passes `check`; or why there is none:

    composite_redefined   it defines or rebinds a name of the functions, at whatever place
    composite_clash       it binds a name at its top that the functions use for something else
    composite_uncalled    its `f` does not use one of them, neither by itself nor through what it calls
    and what `check` says of the whole, too_long above all.
    """
    try:
        given = prelude(functions)
        tree, tables, before = parsed(program), scopes(program), parsed(given)
        imported = _imported(before)
        defined = _bound(scopes(given)) - imported
        for table in tables:
            for symbol in table.get_symbols():
                if symbol.get_name() in defined and _binds(symbol):
                    return Refusal("composite_redefined", f"{symbol.get_name()} is given and may not be defined again")
        if refusal := _clash(_imports(ast.walk(tree)), _imports(before.body)):
            return refusal
        if hidden := _rebound(tables) & imported | _bound(tables) & free_names(given):
            return Refusal("composite_clash", f"the given functions use {min(hidden)} for something else")
        used = _reached(tree)
        for number in range(len(functions)):
            if f"g_{number}" not in used:
                return Refusal("composite_uncalled", f"f does not call g_{number}")
        whole = ast.unparse(_joined([before, tree]))
    except PARSE_ERRORS as error:
        return Refusal("syntax", f"the program does not parse: {error.__class__.__name__}")
    return check(whole, allowed_imports) or whole


def own_part(functions: Sequence[str], program: str) -> str:
    """What the proposer wrote of a complete program, with all imports: the part that its rewards may measure. All of it without functions."""
    if not functions:
        return program
    imports, _, own = _thirds(functions, program)
    return ast.unparse(ast.Module([*imports, *own], []))


def without(functions: Sequence[str], program: str, number: int) -> str:
    """A complete program whose function g_<number> raises, whatever it is called with."""
    imports, given, own = _thirds(functions, program)
    absent = parsed(f"def g_{number}(*_, **__):\n    raise BaseException('g_{number} is away')").body
    return ast.unparse(ast.Module([*imports, *given, *absent, *own], []))


def _thirds(functions: Sequence[str], program: str) -> tuple[list[ast.stmt], list[ast.stmt], list[ast.stmt]]:
    """The statements of a complete program: imports, given functions, what was proposed."""
    count = len(_parted(parsed(prelude(functions)))[1])
    imports, rest = _parted(parsed(program))
    return imports, rest[:count], rest[count:]


Imported = tuple[str, str, ast.Import | ast.ImportFrom]  # the name that is bound, what it means, the statement


def _imports(nodes: Iterable[ast.AST]) -> list[Imported]:
    """The imports among these nodes, one name each. `import a.b` binds a, as `import a` does."""
    found: list[Imported] = []
    for statement in nodes:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                meaning = alias.name if alias.asname else alias.name.split(".")[0]
                found.append((alias.asname or meaning, meaning, ast.Import([alias])))
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                single = ast.ImportFrom(statement.module, [alias], statement.level)
                found.append((alias.asname or alias.name, f"{statement.module} {alias.name}", single))
    return found


def _imported(tree: ast.Module) -> set[str]:
    return {name for name, _, _ in _imports(tree.body)}


def _parted(tree: ast.Module) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """The top-level imports, one name each, and all else."""
    return [statement for _, _, statement in _imports(tree.body)], [s for s in tree.body if not isinstance(s, ast.Import | ast.ImportFrom)]


def _joined(trees: Sequence[ast.Module]) -> ast.Module:
    """One module of several: each import once, then all else in order."""
    imports = {ast.unparse(statement): statement for tree in trees for statement in _parted(tree)[0]}
    return ast.Module([*imports.values(), *(statement for tree in trees for statement in _parted(tree)[1])], [])


def _clash(imports: Sequence[Imported], others: Sequence[Imported]) -> Refusal | None:
    meanings = {name: meaning for name, meaning, _ in others}
    for name, meaning, _ in imports:
        if name == "*" or meaning.startswith("__future__"):
            return Refusal("composite_clash", "what this import does to the given functions is not known")
        if meanings.get(name, meaning) != meaning:
            return Refusal("composite_clash", f"{name} is {meaning} here and {meanings[name]} in the given functions")
    return None


def _binds(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_parameter() or symbol.is_local()


def _bound(tables: Sequence[symtable.SymbolTable]) -> set[str]:
    """The names that a program binds at its top, also from within a function (`global`)."""
    return {symbol.get_name() for table in tables for symbol in table.get_symbols() if symbol.is_global() and _binds(symbol)}


def _rebound(tables: Sequence[symtable.SymbolTable]) -> set[str]:
    """Those that it binds there otherwise than by an import."""
    return {symbol.get_name() for table in tables for symbol in table.get_symbols() if symbol.is_global() and symbol.is_assigned()}


def _unrenamable(tree: ast.Module, tables: Sequence[symtable.SymbolTable]) -> Refusal | None:
    """Why a program's top-level names cannot be changed: each must mean the same wherever it occurs, and nothing may tell what it is called."""
    for statement in tree.body:
        targets = (
            statement.targets if isinstance(statement, ast.Assign) else [statement.target] if isinstance(statement, ast.AnnAssign) else []
        )
        if not isinstance(statement, DEFINITIONS) or not all(isinstance(target, ast.Name) for target in targets):
            return Refusal("composite_statement", "it does more at its top than import and define")
    bound, imported = _bound(tables), _imported(tree)
    anywhere = {name for name, _, _ in _imports(ast.walk(tree))}
    rebound = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names} | _rebound(tables)
    if anywhere & rebound:
        return Refusal("composite_name", "an import and a definition share a name")
    for name in sorted(bound):
        if name in BUILTINS or name.startswith("__"):
            return Refusal("composite_name", f"its {name} is a builtin's name, or private")
    for table in tables:
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if GIVEN.match(name):
                return Refusal("composite_name", f"it uses {name}, a name of given functions")
            if name in bound - imported and not symbol.is_global():
                return Refusal("composite_name", f"{name} means different things in it")
    private = tuple(f"_{name.lstrip('_')}__" for name in bound)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (node.attr in OBSERVED or node.attr.startswith(private)):
            return Refusal("composite_name", f"it asks for {node.attr}, which a new name changes")
    return None


def _rename(tree: ast.Module, names: dict[str, str]) -> None:
    """Changes the names wherever a variable is named, given that each means the same everywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            node.names = [names.get(name, name) for name in node.names]
        for field in ("id", "name", "rest"):  # of variables; definitions, `except ... as` and patterns; mappings' patterns
            if not isinstance(node, ast.alias) and isinstance(name := getattr(node, field, None), str):
                setattr(node, field, names.get(name, name))


def _reached(tree: ast.Module) -> set[str]:
    """The names that are read by `f`, by what it reads of the same text, and so on."""
    definitions = [(set(_names(statement, ast.Store)), set(_names(statement, ast.Load))) for statement in tree.body]
    reached, before = {"f"}, set[str]()
    while reached != before:
        before = set(reached)
        for binds, reads in definitions:
            if binds & before:
                reached |= reads
    return reached


def _names(statement: ast.stmt, context: type[ast.expr_context]) -> Iterator[str]:
    if context is ast.Store and isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            yield node.id
        elif context is ast.Store and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
