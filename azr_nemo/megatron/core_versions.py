"""Where the versions of megatron-core that this package runs with, 0.16.1 to 0.19.2, differ for it. Every difference is here.

0.16.1 is the newest for Python 3.11. From 0.17 on it asks for Python 3.12, and its layer specifications are functions that wait for their arguments.
"""

import functools
from typing import Any

import megatron.core
from packaging.version import Version

from azr_nemo.errors import UserError

OLDEST, NEWEST = Version("0.16.1"), Version("0.19.2")


def require_known(version: str = "") -> None:
    """Raises UserError for a megatron-core that was never tried; later patches of the newest pass. version: by default the installed one."""
    found = Version(version or megatron.core.__version__)
    if not found >= OLDEST or found.release[:2] > NEWEST.release[:2]:
        raise UserError(f"megatron-core {found} is installed, which was never tried: install one from {OLDEST} to {NEWEST}")


def mlp_parts(layer: Any) -> Any:
    """The parts of a layer specification's MLP, to be exchanged in place. layer: its submodules."""
    return layer.mlp.keywords["submodules"] if isinstance(layer.mlp, functools.partial) else layer.mlp.submodules
