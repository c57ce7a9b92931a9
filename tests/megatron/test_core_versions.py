import functools
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import process_trees
import pytest

from azr_nemo.errors import UserError
from azr_nemo.megatron.core_versions import mlp_parts, require_known


@pytest.mark.parametrize("version", ["0.16.1", "0.17.0rc1", "0.18.2", "0.19.2", "0.19.7", ""], ids=lambda version: version or "installed")
def test_a_version_between_the_two_that_are_tested_and_what_is_installed_pass(version: str) -> None:
    try:
        require_known(version)
    except UserError as refusal:
        pytest.fail(f"{version or 'what is installed'} was tried, and is refused: {refusal}")


@pytest.mark.parametrize("version", ["0.10.0", "0.16.0", "0.20.0", "1.0"])
def test_a_version_that_was_never_tried_is_a_sentence(version: str) -> None:
    with pytest.raises(UserError, match=r"which was never tried: install one from 0\.16\.1 to 0\.19\.2"):
        require_known(version)


def test_an_mlps_parts_are_found_in_a_specification_and_in_a_waiting_call() -> None:
    parts = object()
    specification = types.SimpleNamespace(mlp=types.SimpleNamespace(submodules=parts))
    waiting = types.SimpleNamespace(mlp=functools.partial(print, submodules=parts))
    assert mlp_parts(specification) is mlp_parts(waiting) is parts


HERE = Path(__file__).parent
CURRENT = HERE.parents[1] / ".venv-megatron-current"  # of `make test-megatron-current`


def run(mode: str, current: bool, folder: Path, model_dir: Path) -> str:
    paths = [*([str(CURRENT)] if current else []), str(HERE)]
    command = [sys.executable, "-W", "ignore", HERE / "core_version_job.py", mode, folder, model_dir]
    done = process_trees.run(command, timeout=900, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()[-1]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # four processes that import all of Megatron
@pytest.mark.skipif(
    not (CURRENT / ".installed").exists(), reason="megatron-core 0.19.2 is not beside: make test-megatron-current puts it there"
)
def test_a_checkpoint_of_one_version_goes_on_in_the_other_bit_for_bit(model_dir: Callable[..., Path], tmp_path: Path) -> None:
    for current in (False, True):
        folder = tmp_path / str(current)
        folder.mkdir()
        saved = run("save", current, folder, model_dir())
        loaded = run("load", not current, folder, model_dir())
        assert {saved, loaded} == {"0.16.1", "0.19.2"}
