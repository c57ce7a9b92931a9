"""Checkpoints are whole or are not read; what was there before survives every failure."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import process_trees
import pytest

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written, write_file
from azr_nemo.runs import checkpoints as module
from azr_nemo.runs.checkpoints import Checkpoint, Checkpoints, read


def write(folder):
    (folder / "weights").mkdir()
    (folder / "weights" / "part.safetensors").write_bytes(b"w" * 1000)
    with closing(sqlite3.connect(folder / "buffer.sqlite")) as database, database:
        database.executescript("PRAGMA user_version = 1; CREATE TABLE tasks (program)")
        database.executemany("INSERT INTO tasks VALUES (?)", [("x" * 500,)] * 20)
    return {"weights/part.safetensors": Written.of(b"w" * 1000)}


def save(checkpoints: Checkpoints, *steps: int, write=write) -> Checkpoint:
    for step in steps:
        checkpoints.begin(step)
        saved = checkpoints.complete(step, write)
    return saved


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.glob("step_*"))


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "run", keep=2)


def test_the_latest_whole_checkpoint_is_found(checkpoints):
    save(checkpoints, 5, 10)
    assert checkpoints.find("auto").step == 10


def test_only_so_many_are_kept(checkpoints):
    save(checkpoints, 1, 2, 3)
    assert names(checkpoints) == ["step_000002", "step_000003"]


def test_every_nth_is_kept_for_good_beside_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=4)
    save(checkpoints, *range(12))
    assert names(checkpoints) == ["step_000004", "step_000008", "step_000011"]


def test_a_run_taken_back_to_an_earlier_step_keeps_what_it_saves_and_leaves_later_ones(checkpoints):
    save(checkpoints, 2, 4, 6)
    save(checkpoints, 3)
    assert checkpoints.find("auto").step == 3
    assert names(checkpoints) == ["step_000003", "step_000004", "step_000006"]
    save(checkpoints, 4, 5)
    assert names(checkpoints) == ["step_000004", "step_000005", "step_000006"]
    assert checkpoints.find("auto").step == 5


def test_an_empty_run_starts_afresh(checkpoints):
    assert checkpoints.find("auto") is None
    assert checkpoints.find("never") is None


def test_never_does_not_overwrite_a_run(checkpoints):
    save(checkpoints, 1)
    with pytest.raises(UserError, match="already holds a run"):
        checkpoints.find("never")


def cut(path):
    os.truncate(path, 500)


def overwrite(path):
    size = path.stat().st_size
    path.write_bytes(bytes([255]) * size)


DAMAGES = {
    "part.safetensors has 500 bytes instead of 1000": lambda saved: cut(saved / "weights" / "part.safetensors"),
    "buffer.sqlite has 500 bytes": lambda saved: cut(saved / "buffer.sqlite"),
    "its buffer.sqlite is no sound database": lambda saved: overwrite(saved / "buffer.sqlite"),
    "buffer.sqlite is missing": lambda saved: (saved / "buffer.sqlite").unlink(),
    "its state.json is missing or damaged": lambda saved: overwrite(saved / "state.json"),
}


@pytest.mark.parametrize("sentence", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_note_that_names_it(checkpoints, sentence):
    save(checkpoints, 1)
    second = save(checkpoints, 2).path
    DAMAGES[sentence](second)
    notes = []
    assert checkpoints.find("auto", notes.append).step == 1
    (note,) = notes
    assert sentence in note
    assert str(second) in note
    assert f"goes on from {checkpoints.folder / 'step_000001'}" in note
    with pytest.raises(UserError, match=sentence):
        checkpoints.find(str(second))
    save(checkpoints, 2)
    assert checkpoints.find("auto").step == 2, "the damaged one was replaced"


def rewrite(path):
    """As a broken disk does: other bytes, the same size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["weights/part.safetensors", "buffer.sqlite"])
def test_a_file_with_one_other_bit_is_passed_over_where_the_run_goes_on_from_it(checkpoints, name):
    save(checkpoints, 1, 2)
    second = checkpoints.folder / "step_000002"
    rewrite(second / name)
    notes = []
    assert checkpoints.find("auto", notes.append, hashed_below=3).step == 1
    assert f"{name} is not what was written (its sha256 differs)" in notes[0]
    with pytest.raises(UserError, match=f"{second} is damaged: {name} is not what was written"):
        checkpoints.find(str(second), hashed_below=3)
    assert checkpoints.find("auto", hashed_below=2).step == 2, "all its steps are done: nothing is read"


def test_a_checkpoint_of_an_earlier_version_has_no_hashes_and_is_taken(checkpoints):
    saved = save(checkpoints, 1).path
    record = json.loads((saved / "state.json").read_text())
    assert record.pop("sha256").keys() == record["files"].keys()
    (saved / "state.json").write_text(json.dumps(record))
    assert checkpoints.find("auto", hashed_below=9).step == 1


def test_when_all_are_damaged_the_newest_is_named_and_nothing_is_begun_anew(checkpoints):
    for saved in (save(checkpoints, 1), save(checkpoints, 2)):
        cut(saved.path / "weights" / "part.safetensors")
    with pytest.raises(UserError, match=r"step_000002 is damaged.*no checkpoint before it is whole either.*resume=PATH.*another run_dir"):
        checkpoints.find("auto")


def test_a_damaged_word_of_the_latest_costs_nothing(checkpoints):
    save(checkpoints, 1, 2)
    (checkpoints.folder / "latest").write_bytes(b"\xff\x00")
    assert checkpoints.find("auto").step == 2
    (checkpoints.folder / "latest").unlink()
    assert checkpoints.find("auto").step == 2


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"state\.json"):
        read(tmp_path)


def test_a_save_that_fails_leaves_the_one_before(checkpoints):
    save(checkpoints, 1)

    def fail(folder):
        write(folder)
        raise RuntimeError("a rank died")

    with pytest.raises(RuntimeError, match="a rank died"):
        save(checkpoints, 2, write=fail)
    assert checkpoints.find("auto").step == 1
    assert not list(checkpoints.folder.glob(".writing*"))


def test_what_a_killed_save_left_is_not_picked_up_and_is_cleared(checkpoints):
    save(checkpoints, 1)
    half = checkpoints.folder / ".writing_000002"
    half.mkdir()
    (half / "state.json").write_text("{")
    assert checkpoints.find("auto").step == 1
    checkpoints.clear_unfinished()
    assert not half.exists()
    assert save(checkpoints, 2).step == 2


def test_files_that_another_node_wrote_to_its_own_disk_are_missed(checkpoints, monkeypatch):
    monkeypatch.setattr(module, "SEEN_S", 0.0)
    save(checkpoints, 1)
    with pytest.raises(UserError, match=r"slices-00001, which its rank has written, does not appear here.*all nodes share"):
        save(checkpoints, 2, write=lambda folder: {**write(folder), "weights/slices-00001": Written(10, "")})
    assert checkpoints.find("auto").step == 1


@pytest.mark.slow
def test_a_save_killed_at_any_of_its_calls_leaves_a_whole_checkpoint(tmp_path):
    """Ends a fork at its nth call to the system, for every n, and looks at what is there."""
    before = Checkpoints(tmp_path / "before", keep=1)
    save(before, 1)
    steps = []
    for kill in range(1, 100):
        run = tmp_path / str(kill)
        shutil.copytree(tmp_path / "before", run)
        child = process_trees.fork()
        if not child:
            _die_at(kill)
            save(Checkpoints(run, keep=1), 2)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        checkpoints = Checkpoints(run, keep=1)
        notes = []
        found = checkpoints.find("auto", notes.append)
        assert not notes
        steps.append(found.step)
        assert read(found.path).step == found.step
        checkpoints.clear_unfinished()
        assert save(checkpoints, 2, 3).step == 3, "the run goes on"
        assert names(checkpoints) == ["step_000003"]
        if ended == 0:
            break
    assert ended == 0
    assert kill > 20, "so many calls were tried"
    assert steps == sorted(steps), "the new one counts from one call on"
    assert set(steps) == {1, 2}


def _die_at(kill: int) -> None:
    calls = iter(range(1, kill + 1))

    def counted(call):
        def run(*args, **kwargs):
            if next(calls) == kill:
                os._exit(9)
            return call(*args, **kwargs)

        return run

    for name in ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("write_text", "write_bytes"):
        setattr(Path, name, counted(getattr(Path, name)))
    shutil.rmtree = counted(shutil.rmtree)


def test_a_full_disk_is_a_sentence_and_the_checkpoint_before_stays(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or process_trees.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", small], timeout=20).returncode:
        pytest.skip("a small file system needs the right to mount")
    try:
        checkpoints = Checkpoints(small, keep=2)
        save(checkpoints, 1)
        with pytest.raises(UserError, match="the disk is full"):
            save(checkpoints, 2, write=lambda folder: {"big": write_file(folder / "big", b"x" * 200_000)})
        assert checkpoints.find("auto").step == 1
    finally:
        process_trees.run(["umount", small], timeout=20, check=True)


def test_growth_is_told_while_the_checkpoint_in_the_making_becomes_whole(checkpoints, monkeypatch):
    save(checkpoints, 1)
    whole = checkpoints.growth()[1]
    write(checkpoints.begin(2))
    assert 0 < checkpoints.growth()[0] < whole
    scandir = os.scandir

    def renamed_first(path):
        if Path(path).name == ".writing_000002":
            os.rename(path, checkpoints.folder / "step_000002")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", renamed_first)
    written, _ = checkpoints.growth()
    assert written == 0
