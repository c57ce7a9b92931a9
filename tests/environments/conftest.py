"""Referees that tests made end with their file."""

from collections.abc import Iterator

import pytest

from azr_nemo.environments.referee import close_referees


@pytest.fixture(scope="module", autouse=True)
def no_referee_stays() -> Iterator[None]:
    yield
    close_referees()
