"""Checkpoints are whole or are not read; what was there before survives every failure."""

import os
import subprocess

import pytest

from azr_nemo.errors import UserError
from azr_nemo.trainer.checkpoints import Checkpoints, read


def write(folder):
    (folder / "weights").mkdir()
    (folder / "weights" / "part.safetensors").write_bytes(b"w" * 1000)
    (folder / "buffer.sqlite").write_bytes(b"b" * 100)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "run", keep=2)


def test_the_latest_whole_checkpoint_is_found(checkpoints):
    for step in (5, 10):
        checkpoints.save(step, write)
    assert checkpoints.find("auto").step == 10


def test_only_so_many_are_kept(checkpoints):
    for step in (1, 2, 3):
        checkpoints.save(step, write)
    assert sorted(path.name for path in checkpoints.folder.glob("step_*")) == ["step_000002", "step_000003"]


def test_an_empty_run_starts_afresh(checkpoints):
    assert checkpoints.find("auto") is None
    assert checkpoints.find("never") is None


def test_never_does_not_overwrite_a_run(checkpoints):
    checkpoints.save(1, write)
    with pytest.raises(UserError, match="already holds a run"):
        checkpoints.find("never")


def test_a_checkpoint_cut_in_half_is_named_and_the_one_before_is_offered(checkpoints):
    checkpoints.save(1, write)
    second = checkpoints.save(2, write)
    os.truncate(second.path / "weights" / "part.safetensors", 500)
    with pytest.raises(UserError, match=r"part.safetensors has 500 bytes instead of 1000; .*resume=.*step_000001"):
        checkpoints.find("auto")
    assert checkpoints.find(str(checkpoints.folder / "step_000001")).step == 1


def test_a_missing_file_is_damage(checkpoints):
    saved = checkpoints.save(1, write)
    (saved.path / "buffer.sqlite").unlink()
    with pytest.raises(UserError, match=r"buffer\.sqlite is missing"):
        read(saved.path)


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"state\.json"):
        read(tmp_path)


def test_a_save_that_fails_leaves_the_one_before(checkpoints):
    checkpoints.save(1, write)

    def fail(folder):
        write(folder)
        raise RuntimeError("a rank died")

    with pytest.raises(RuntimeError, match="a rank died"):
        checkpoints.save(2, fail)
    assert checkpoints.find("auto").step == 1
    assert not list(checkpoints.folder.glob(".writing*"))


def test_what_a_killed_save_left_is_not_picked_up(checkpoints):
    checkpoints.save(1, write)
    half = checkpoints.folder / ".writing_000002"
    half.mkdir()
    (half / "state.json").write_text("{")
    assert checkpoints.find("auto").step == 1
    assert checkpoints.save(2, write).step == 2


def test_a_full_disk_is_a_sentence_and_the_checkpoint_before_stays(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False, capture_output=True).returncode
    ):
        pytest.skip("a small file system needs the right to mount")
    try:
        checkpoints = Checkpoints(small, keep=2)
        checkpoints.save(1, write)
        with pytest.raises(UserError, match="the disk is full"):
            checkpoints.save(2, lambda folder: (folder / "big").write_bytes(b"x" * 200_000))
        assert checkpoints.find("auto").step == 1
    finally:
        subprocess.run(["umount", small], check=True)
