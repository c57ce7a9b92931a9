"""The buffer's file under kills, full disks, damage and copies."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import process_trees
import pytest
from sample_tasks import adder_task

from azr_nemo.errors import UserError
from azr_nemo.selfplay.buffer import TaskBuffer

BATCH = 4

WRITER = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from sample_tasks import adder_task
from azr_nemo.selfplay.buffer import TaskBuffer

with TaskBuffer(Path(sys.argv[1]), capacity=10**6) as buffer:
    step = 1 + max(buffer.steps, default=0)
    print("open", flush=True)
    while True:
        with buffer.transaction():
            for i in range({BATCH}):
                buffer.record(buffer.add(adder_task({BATCH} * step + i), step), 1, 2)
            buffer.write_note("last", {{"step": step}})
        step += 1
"""


def filled(path, count=3):
    buffer = TaskBuffer(path, capacity=100)
    with buffer.transaction():
        for i in range(count):
            buffer.add(adder_task(i), step=i)
    return buffer


def add_many(buffer, count):
    """Each in a transaction of its own."""
    for i in range(10, count):
        buffer.add(adder_task(i), step=9)


def test_a_writer_killed_at_any_moment_leaves_whole_transactions(tmp_path):
    path, rng = tmp_path / "tasks.sqlite", random.Random(1)
    for _ in range(4):
        with process_trees.Process([sys.executable, "-P", "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == "open\n"
            time.sleep(rng.uniform(0.0, 0.15))
            writer.send_signal(signal.SIGKILL)
        with TaskBuffer(path, capacity=10**6) as buffer:
            last = buffer.read_note("last").get("step", 0)
            assert buffer.count() == BATCH * last
            assert buffer.steps == list(range(1, last + 1))
            assert all((s.attempts, s.solved) == (2, 1) for s in buffer.tasks())
    assert last > 4


def test_a_backup_restores_to_an_equal_buffer(tmp_path):
    with filled(tmp_path / "live") as buffer:
        buffer.record(1, 1, 2)
        buffer.write_note("n", {"a": 1})
        tasks = buffer.tasks()
        buffer.backup(tmp_path / "copy")
        buffer.add(adder_task(50), step=9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "live"]
    assert (tmp_path / "copy").read_bytes()[18:20] == b"\1\1", "a file in WAL mode could not be read from a read-only directory"
    with TaskBuffer.restore(tmp_path / "copy", tmp_path / "live", capacity=100) as restored:
        assert restored.tasks() == tasks
        assert restored.read_note("n") == {"a": 1}


def test_a_restored_buffer_numbers_its_tasks_like_an_uninterrupted_one(tmp_path):
    with TaskBuffer(tmp_path / "live", capacity=2) as buffer:
        for i in range(5):
            buffer.add(adder_task(i), step=i)
        buffer.remove_after(2)
        buffer.backup(tmp_path / "copy")
        uninterrupted = buffer.add(adder_task(9), step=9)
    with TaskBuffer.restore(tmp_path / "copy", tmp_path / "live", capacity=2) as restored:
        assert restored.add(adder_task(9), step=9) == uninterrupted


def test_the_journal_of_a_killed_run_does_not_leak_into_a_restored_buffer(tmp_path):
    live = tmp_path / "live"
    with filled(live) as buffer:
        buffer.backup(tmp_path / "copy")
        buffer.add(adder_task(50), step=9)
        for suffix in ("", "-wal", "-shm"):  # what a kill would leave behind
            shutil.copy(f"{live}{suffix}", f"{live}.kept{suffix}")
    for suffix in ("", "-wal", "-shm"):
        shutil.move(f"{live}.kept{suffix}", f"{live}{suffix}")
    assert os.path.getsize(f"{live}-wal") > 0
    with TaskBuffer.restore(tmp_path / "copy", live, capacity=100) as restored:
        assert restored.count() == 3


def test_a_backup_inside_a_transaction_is_refused(tmp_path):
    with filled(tmp_path / "live") as buffer, buffer.transaction(), pytest.raises(RuntimeError, match="half"):
        buffer.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_failed_backup_leaves_the_earlier_one(tmp_path):
    with filled(tmp_path / "live") as buffer:
        (tmp_path / "state").mkdir()
        copy = tmp_path / "state" / "copy"
        buffer.backup(copy)
        before = copy.read_bytes()
        (tmp_path / "state" / "copy.partial").mkdir()  # in the way
        with pytest.raises(UserError, match="copy"):
            buffer.backup(copy)
        assert copy.read_bytes() == before


@pytest.mark.parametrize("damage", ["half", "garbage", "empty", "page"])
def test_a_damaged_backup_is_named_and_the_live_buffer_stays(tmp_path, damage):
    live, copy = tmp_path / "live", tmp_path / "copy"
    with filled(live, 60) as buffer:
        buffer.backup(copy)
    whole = copy.read_bytes()
    page = bytes([255] * 4096)
    copy.write_bytes(
        {"half": whole[: len(whole) // 2], "garbage": b"{}" * 4096, "empty": b"", "page": whole[:4096] + page + whole[8192:]}[damage]
    )
    with pytest.raises(UserError, match=rf"{copy} is not a sound task buffer .* resume from an earlier checkpoint"):
        TaskBuffer.restore(copy, live, capacity=100)
    with TaskBuffer(live, capacity=100) as buffer:
        assert buffer.count() == 60


def test_a_missing_backup_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no task buffer at .*copy"):
        TaskBuffer.restore(tmp_path / "copy", tmp_path / "live", capacity=100)


def test_opening_something_else_is_refused(tmp_path):
    (tmp_path / "text").write_text("def f(x): return x\n" * 100)
    with pytest.raises(UserError, match="text is not a sound task buffer"):
        TaskBuffer(tmp_path / "text", capacity=1)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE songs (name)")
    with pytest.raises(UserError, match="schema version 0"):
        TaskBuffer(tmp_path / "other", capacity=1)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UserError, match="run_dir"):
        TaskBuffer(tmp_path / "absent" / "tasks.sqlite", capacity=1)


def test_a_second_writer_is_told_that_the_buffer_is_in_use(tmp_path):
    with filled(tmp_path / "b") as first, TaskBuffer(tmp_path / "b", capacity=100) as second:
        second._db.execute("PRAGMA busy_timeout = 10")
        with first.transaction(), pytest.raises(UserError, match="in use"):
            second.add(adder_task(9), step=9)


def test_a_full_database_is_a_sentence_and_keeps_what_was_stored(tmp_path):
    path = tmp_path / "b"
    with filled(path) as buffer:
        pages = buffer._db.execute("PRAGMA page_count").fetchone()[0]
        buffer._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(UserError, match=r"cannot be written .*full.* free space"):
            add_many(buffer, 1000)
        kept = buffer.count()
    with TaskBuffer(path, capacity=1000) as buffer:
        assert buffer.count() == kept >= 3
        assert buffer.add(adder_task(5000), step=10)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or process_trees.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], timeout=20).returncode:
        pytest.skip("mounting a small tmpfs needs root and the right to mount")
    yield folder
    process_trees.run(["umount", folder], timeout=20, check=True)


def test_a_full_disk_is_a_sentence_and_keeps_what_was_stored(small_disk):
    path = small_disk / "b"
    with TaskBuffer(path, capacity=10**6) as buffer:
        with pytest.raises(UserError, match=r"cannot be written .* free space"):
            add_many(buffer, 20_000)
        kept = buffer.count()
        with pytest.raises(UserError, match="copy cannot be written"):
            buffer.backup(small_disk / "copy")
        assert not list(small_disk.glob("copy*"))
    with TaskBuffer(path, capacity=10**6) as buffer:
        assert buffer.count() == kept > 10
