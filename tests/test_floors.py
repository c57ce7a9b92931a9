"""The layout shows the architecture: imports go down only, in no circle, and the docs name files and symbols that are there."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "azr_nemo"
# docs/architecture.md draws them. From the top; on one floor, in one tuple, packages may know each other.
FLOORS = (
    ("__main__", "cli"),
    ("aligner",),
    ("trainer",),
    ("evaluation", "doctor", "planning", "launch"),
    ("conversion", "models"),
    ("megatron", "rollout"),
    ("observe", "runs"),
    ("warmup", "environments"),
    ("selfplay",),
    ("rewards",),
    ("tasks", "algorithms", "sandbox"),
    ("settings", "progress", "file_hashes", "json_lines"),
    ("errors",),
)
FLOOR = {package: -number for number, floor in enumerate(FLOORS) for package in floor}
LARGEST = 350  # lines of a file


def modules() -> dict[str, Path]:
    """Files by their dotted names without `azr_nemo.`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that a file imports, also inside functions and for type checking alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("azr_nemo."):
                name = name.removeprefix("azr_nemo.")
                found.add(name if name in known else name.rpartition(".")[0])
    return found


KNOWN = modules()


@cache
def graph() -> dict[str, set[str]]:
    return {name: imports(path, KNOWN) for name, path in KNOWN.items() if name}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, or nothing."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        for other in sorted(graph.get(name, ())):
            if ring := visit(other):
                return ring
        done.add(path.pop())
        return []

    for name in sorted(graph):
        if ring := visit(name):
            return ring
    return []


def test_every_package_has_its_floor():
    assert {name.partition(".")[0] for name in KNOWN if name} == set(FLOOR)


def test_imports_go_down_only():
    up = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if FLOOR[other.partition(".")[0] or "errors"] > FLOOR[name.partition(".")[0]]
    ]
    assert not up


def test_no_modules_import_each_other_in_a_circle():
    assert circle(graph()) == []


def test_a_circle_and_an_arrow_up_would_be_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert FLOOR["trainer"] > FLOOR["selfplay"] > FLOOR["errors"]


def test_a_file_name_says_which_file_is_meant():
    """In the package, and among the tests, where pytest wants it."""
    for files in (PACKAGE.rglob("*.py"), (ROOT / "tests").rglob("test_*.py")):
        counts = Counter(path.name for path in files)
        assert [name for name, count in counts.items() if count > 1 and name != "__init__.py"] == []


def test_files_are_rooms_not_halls():
    assert {name: n for name, path in KNOWN.items() if (n := len(path.read_text(encoding="utf-8").splitlines())) > LARGEST} == {}


def defined(path: Path) -> set[str]:
    """Top-level names of a file, and `Class.name` of what its classes define."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for name in _names(node):
            found.add(name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{name}.{inner}" for part in node.body for inner in _names(part)}
    return found


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


NAMED = re.compile(r"`([\w/]+\.py)(?::([\w.]+))?`")


@pytest.mark.parametrize("page", ["architecture.md", "extending.md", "glossary.md"])
def test_a_page_names_files_and_symbols_that_are_there(page):
    named = NAMED.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(named) > 5
    for file, symbol in named:
        path = PACKAGE / file if (PACKAGE / file).is_file() else ROOT / file
        assert path.is_file(), f"docs/{page} names {file}"
        assert not symbol or symbol in defined(path), f"docs/{page} names {symbol} in {file}"


def anchors(path: Path) -> set[str]:
    """What may stand behind # in a link to this page: its headings as a reader of Markdown names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S), re.M)
    words = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in words}


PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("", "docs", "recipes", "launcher_scripts/slurm")
    for path in (ROOT / folder).glob("*.md")
)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        assert not anchor or path.suffix != ".md" or anchor in anchors(path), f"{page} links to {target}#{anchor}"
