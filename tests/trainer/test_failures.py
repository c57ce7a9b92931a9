"""What goes wrong outside a run ends it with one sentence or is passed over with a note, and nothing that was there before is lost."""

import json
import os
from contextlib import contextmanager

import process_trees
import pytest
from tiny_run import finish, refused, start, state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def mounted(folder, options):
    """A file system of its own at `folder`; skips where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if os.geteuid() or process_trees.run(command, timeout=20).returncode:
        pytest.skip("a file system of one's own needs the right to mount")
    try:
        yield folder
    finally:
        process_trees.run(["umount", folder], timeout=20, check=True)


def test_a_run_directory_that_is_read_only_is_refused(tmp_path):
    with mounted(tmp_path / "disk", "ro") as disk:
        assert "cannot be written (Read-only file system): choose another with run_dir=DIR" in refused(start(disk / "run"))


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_a_run_on_a_full_disk_goes_on_once_there_is_room(tmp_path, whole, asynchronous):
    with mounted(tmp_path / "disk", "size=9m") as disk:
        settings = ["selfplay.steps=3", f"checkpoint.asynchronous={asynchronous}"]
        sentence = refused(start(disk / "run", *settings))
        assert "the checkpoint of step 1 could not be written" in sentence
        assert "the disk is full; free some space and start the run again" in sentence
        assert sorted(path.name for path in (disk / "run" / "checkpoints").iterdir()) == ["latest", "step_000000"]
        process_trees.run(["mount", "-o", "remount,size=200m", disk], timeout=20, check=True)
        assert "resumed after step 0" in finish(start(disk / "run", *settings))
        assert state(disk / "run", 3) == whole


def test_rollouts_that_cannot_be_written_end_the_run_before_a_step_without_them_is_saved(tmp_path):
    (tmp_path / "rollouts").write_text("in the way")
    sentence = refused(start(tmp_path, "selfplay.steps=2", "eval.items=0"))
    assert f"cannot write {tmp_path / 'rollouts'} (File exists)" in sentence
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest", "step_000000"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run of three steps ends with when nothing goes wrong."""
    run_dir = tmp_path_factory.mktemp("whole")
    finish(start(run_dir, "selfplay.steps=3"))
    return state(run_dir, 3)


def overwrite(path, size=None):
    path.write_bytes(bytes([255]) * (size or path.stat().st_size))


def test_a_damaged_checkpoint_and_a_damaged_buffer_are_passed_over_with_a_note(tmp_path, whole):
    finish(start(tmp_path, "selfplay.steps=2"))
    (part,) = (tmp_path / "checkpoints" / "step_000002" / "weights").glob("*.safetensors")
    with part.open("r+b") as file:
        file.seek(part.stat().st_size // 2)
        file.write(bytes(65536))  # what a broken disk gives back: it loads, and would be trained on
    overwrite(tmp_path / "buffer.sqlite")
    overwrite(tmp_path / "buffer.sqlite-wal", 10_000)
    output = finish(start(tmp_path, "selfplay.steps=3"))
    assert f"{part.name} is not what was written (its sha256 differs)" in output
    assert f"the run goes on from {tmp_path / 'checkpoints' / 'step_000001'}, the checkpoint before it" in output
    assert "resumed after step 1" in output
    assert state(tmp_path, 3) == whole


def test_a_buffer_that_is_damaged_before_the_first_checkpoint_is_named_with_what_to_do(tmp_path):
    overwrite(tmp_path / "buffer.sqlite", 10_000)
    assert f"{tmp_path / 'buffer.sqlite'} is not a sound task buffer (file is not a database): remove it" in refused(start(tmp_path))


def forget_hashes(record):
    """As an earlier version wrote it."""
    record.write_text(json.dumps({name: value for name, value in json.loads(record.read_text()).items() if name != "sha256"}))


def test_weights_without_hashes_that_are_overwritten_in_place_are_named_with_the_way_back(tmp_path):
    finish(start(tmp_path, "selfplay.steps=1"))
    (part,) = (tmp_path / "checkpoints" / "step_000001" / "weights").glob("*.safetensors")
    overwrite(part)
    forget_hashes(tmp_path / "checkpoints" / "step_000001" / "state.json")
    sentence = refused(start(tmp_path, "selfplay.steps=2"))
    before = tmp_path / "checkpoints" / "step_000000"
    assert f"the checkpoint {tmp_path / 'checkpoints' / 'step_000001'} cannot be loaded" in sentence
    assert f"resume={before}" in sentence
    assert "resumed after step 0" in finish(start(tmp_path, "selfplay.steps=2", f"resume={before}"))


def test_a_layout_that_does_not_divide_the_heads_is_refused(tmp_path):
    sentence = refused(start(tmp_path / "run", "engine.tensor_parallel=3"))
    assert "engine.tensor_parallel=3 does not divide" in sentence
