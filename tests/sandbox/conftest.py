"""One jailed pool for the tests that do not need their own."""

from collections.abc import Iterator

import pytest

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits
from azr_nemo.sandbox.local.pool import LocalPool


@pytest.fixture(scope="session")
def pool() -> Iterator[LocalPool]:
    try:
        made = LocalPool(workers=2, limits=Limits(wall_s=20.0, cpu_s=20.0))
    except ExecutorUnavailable as error:
        pytest.skip(str(error))
    with made:
        yield made
