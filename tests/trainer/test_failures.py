"""What goes wrong outside a run ends it with one sentence, and nothing that was there before is lost."""

import os
import subprocess
from contextlib import contextmanager

import pytest
from tiny_run import finish, refused, start

pytestmark = pytest.mark.slow


@contextmanager
def mounted(folder, options):
    """A file system of its own at `folder`; skips where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a file system of one's own needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_run_directory_that_is_read_only_is_refused(tmp_path):
    with mounted(tmp_path / "disk", "ro") as disk:
        assert "cannot be written (Read-only file system): choose another with run_dir=DIR" in refused(start(disk / "run"))


@pytest.mark.timeout(600)
def test_a_run_on_a_full_disk_goes_on_once_there_is_room(tmp_path):
    with mounted(tmp_path / "disk", "size=9m") as disk:
        sentence = refused(start(disk / "run", "selfplay.steps=2"))
        assert "the checkpoint of step 1 could not be written" in sentence
        assert "the disk is full; free some space and start the run again" in sentence
        assert sorted(path.name for path in (disk / "run" / "checkpoints").iterdir()) == ["latest", "step_000000"]
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        assert "resumed after step 0" in finish(start(disk / "run", "selfplay.steps=2"))


@pytest.mark.timeout(600)
def test_a_checkpoint_that_was_cut_is_named_and_the_one_before_goes_on(tmp_path):
    finish(start(tmp_path, "selfplay.steps=2"))
    (part,) = (tmp_path / "checkpoints" / "step_000002" / "weights").glob("*.safetensors")
    os.truncate(part, part.stat().st_size // 2)
    sentence = refused(start(tmp_path, "selfplay.steps=3"))
    before = tmp_path / "checkpoints" / "step_000001"
    assert f"{part.name} has" in sentence
    assert f"resume={before}" in sentence
    assert "resumed after step 1" in finish(start(tmp_path, "selfplay.steps=3", f"resume={before}"))


def test_a_layout_that_does_not_divide_the_heads_is_refused(tmp_path):
    sentence = refused(start(tmp_path / "run", "engine.tensor_parallel=3"))
    assert "engine.tensor_parallel=3 does not divide" in sentence
