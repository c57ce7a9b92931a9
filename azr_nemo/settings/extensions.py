"""Code of the user's own that a run begins with: modules that add task types, estimators, losses or rollout engines to what there is."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from azr_nemo.errors import UserError


def extend(names: Sequence[str]) -> list[str]:
    """Imports them, each once, and returns them as other processes find them: files by their absolute paths.

    names: modules of this environment, or paths that end in .py. Raises UserError for one that cannot be imported.
    """
    return [_extended(name) for name in names]


def _extended(name: str) -> str:
    try:
        if not name.endswith(".py"):
            importlib.import_module(name)
            return name
        path = Path(name).expanduser().absolute()
        _import_file(path)
        return str(path)
    except Exception as error:  # whatever the user's own code raises while it is imported
        raise UserError(
            f"extensions={name} cannot be imported ({type(error).__name__}: {error}): give a module of this environment, or the path of a Python file"
        ) from error


def _import_file(path: Path) -> None:
    known_as = f"azr_nemo_extension_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if known_as in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(known_as, path)
    assert spec is not None  # it never is of a name that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known_as] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[known_as]
        raise
