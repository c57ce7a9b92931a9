"""Makes of a function of any name and a whole call of it a program with the function `f` and an argument text, all by the syntax tree.

The original renames by a pattern on `def name(` alone, which leaves recursive calls with the old name, and adds imports by substring.
"""

import ast
import builtins

from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed
from azr_nemo.tasks.program import free_names

# What a free name of a solution means, as LeetCode's own preamble has it. A module that is also a member is one where it stands before a dot.
MODULES = frozenset(
    "bisect cmath collections copy datetime decimal fractions functools heapq itertools json math operator random re statistics string sys".split()
)
MEMBERS = {
    name: module
    for module, names in {
        "collections": "ChainMap Counter OrderedDict UserDict UserList defaultdict deque namedtuple",
        "math": "acos asin atan atan2 ceil comb cos cosh dist e exp fabs factorial floor fmod fsum gcd hypot inf isclose isfinite isinf isnan isqrt lcm "
        "ldexp log log10 log1p log2 nan perm pi prod sin sqrt tan tanh tau trunc",
        "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse groupby islice pairwise "
        "permutations product repeat starmap takewhile tee zip_longest",
        "functools": "cache cached_property cmp_to_key lru_cache partial reduce total_ordering wraps",
        "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
        "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
        "operator": "add and_ attrgetter itemgetter methodcaller mul or_ sub xor",
        "string": "ascii_letters ascii_lowercase ascii_uppercase digits punctuation",
        "copy": "copy deepcopy",
        "datetime": "date datetime timedelta",
        "fractions": "Fraction",
        "decimal": "Decimal",
        "statistics": "mean median mode",
        "random": "randint",
        "dataclasses": "dataclass field",
        "typing": "Any Callable DefaultDict Deque Dict FrozenSet Generator Iterable Iterator List Literal Mapping NamedTuple Optional Sequence Set Tuple "
        "Type TypeVar Union",
    }.items()
    for name in names.split()
}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def called_f(program: str, call: str) -> tuple[str, str]:
    """The program with its function called `f` wherever it is named, and with the imports that its free names need; the arguments of the call.

    Raises ValueError, in a sentence, when the call is not one call by name of a function of the program's top level.
    """
    try:
        tree, expression = parsed(program), parsed(call.strip(), "eval").body
    except PARSE_ERRORS as error:
        raise ValueError(f"code or input does not parse: {error.__class__.__name__}") from None
    if not (isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name)):
        raise ValueError(f"the input {call[:60]!r} is not a call of a function by its name")
    name = expression.func.id
    if not any(isinstance(node, FUNCTIONS) and node.name == name for node in tree.body):
        raise ValueError(f"the code has no top-level function {name}, which the input calls")
    if name != "f":
        # An inner `f` may shadow the new one only where nobody calls it.
        inner = _names(tree) if "f" in _names(tree) else set()
        other = next(each for each in ("g", "h", *(f"f{i}" for i in range(1, 100))) if each not in inner) if inner else ""
        renamed = {name: "f"} | ({"f": other} if inner else {})
        tree, expression = _Rename(renamed).visit(tree), _Rename({"f": other} if inner else {}).visit(expression)
    expression.func = ast.Name("f", ast.Load())
    tree = ast.fix_missing_locations(tree)
    imports = parsed(needed_imports(ast.unparse(tree))).body
    first = next((place for place, node in enumerate(tree.body) if not _stands_first(node)), 0)
    tree.body[first:first] = imports
    arguments = ast.unparse(ast.fix_missing_locations(expression))[2:-1]
    return ast.unparse(tree), arguments


def needed_imports(program: str) -> str:
    """Import statements for the free names of a program, sorted; names that nobody knows are left free. The program must parse."""
    tree = parsed(program)
    before_dot = {node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules: list[str] = []
    members: dict[str, list[str]] = {}
    for name in sorted(free_names(program) - set(dir(builtins))):
        if name in MODULES and (name in before_dot or name not in MEMBERS):
            modules.append(f"import {name}")
        elif name in MEMBERS:
            members.setdefault(MEMBERS[name], []).append(name)
    return "\n".join([*modules, *(f"from {module} import {', '.join(names)}" for module, names in sorted(members.items()))])


def _stands_first(node: ast.stmt) -> bool:
    """Whether a statement can be a module's docstring or imports from `__future__`, before which no other may stand."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _names(tree: ast.AST) -> set[str]:
    """Every name that a program binds or reads."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found.add(node.name)
    return found


class _Rename(ast.NodeTransformer):
    """Renames variables, functions, parameters and keyword arguments; attributes and methods stay."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    def _new(self, name: str) -> str:
        return self.names.get(name, name)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        methods = [(part, part.name) for part in node.body if isinstance(part, FUNCTIONS)]
        self.generic_visit(node)
        for part, name in methods:
            part.name = name
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._new(node.name)
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.name = self._new(node.name)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._new(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._new(node.arg)
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        node.arg = self._new(node.arg) if node.arg else None
        return self.generic_visit(node)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        node.names = [self._new(name) for name in node.names]
        return node

    visit_Global = visit_Nonlocal  # type: ignore[assignment]
