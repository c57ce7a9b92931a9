import functools
import types

import pytest

from azr_nemo.errors import UserError
from azr_nemo.megatron.core_versions import mlp_parts, require_known


@pytest.mark.parametrize("version", ["0.16.1", "0.17.0rc1", "0.18.2", "0.19.2", "0.19.7"])
def test_a_version_between_the_two_that_are_tested_passes(version: str) -> None:
    require_known(version)


@pytest.mark.parametrize("version", ["0.10.0", "0.16.0", "0.20.0", "1.0"])
def test_a_version_that_was_never_tried_is_a_sentence(version: str) -> None:
    with pytest.raises(UserError, match=r"which was never tried: install one from 0\.16\.1 to 0\.19\.2"):
        require_known(version)


def test_what_is_installed_passes() -> None:
    require_known()


def test_an_mlps_parts_are_found_in_a_specification_and_in_a_waiting_call() -> None:
    parts = object()
    specification = types.SimpleNamespace(mlp=types.SimpleNamespace(submodules=parts))
    waiting = types.SimpleNamespace(mlp=functools.partial(print, submodules=parts))
    assert mlp_parts(specification) is mlp_parts(waiting) is parts
