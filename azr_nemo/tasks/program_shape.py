"""What a program is like without its names and constants: `x + 1` and `age + 30` have one shape. What novelty is measured by where new texts are cheap."""

import ast
import hashlib

from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed
from azr_nemo.tasks.program import normalise


def shape(program: str) -> str:
    """A hash (hex) of the program's syntax tree without the names that it gives, constants, annotations and docstrings; what it calls and which methods
    stays. A text that does not parse has the shape of itself."""
    try:
        tree = parsed(normalise(program))
        dumped = ast.dump(_Nameless(_given(tree)).visit(tree))
    except PARSE_ERRORS:
        dumped = program
    return hashlib.sha256(dumped.encode("utf-8", "surrogatepass")).hexdigest()


def _given(tree: ast.AST) -> set[str]:
    """The names that the program itself gives: to parameters, variables, functions and classes."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return names | {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name
    }


class _Nameless(ast.NodeTransformer):
    def __init__(self, given: set[str]):
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("_", node.ctx) if node.id in self.given else node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg("_")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.name, node.returns = "_", None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.name = "_"
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        self.generic_visit(node)
        node.name = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value else ast.Pass()

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant(type(node.value).__name__)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("str") if all(isinstance(part, ast.Constant) for part in node.values) else self.generic_visit(node)
