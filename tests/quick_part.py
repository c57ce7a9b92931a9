"""Which cases of a long list `make test-fast` takes; `make test` takes all of them."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick_part(cases: Iterable[Any], of: int = 4) -> list[Any]:
    """Cases of one claim: each so many'th stays quick, the others are marked slow, as together they are. A tuple has a value of each parameter."""
    return [
        case if number % of == 0 else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for number, case in enumerate(cases)
    ]
