"""The buffer's SQLite file: its schema, opening and checking it, its image as bytes, and SQLite's errors in the user's words."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from azr_nemo.errors import UserError

SCHEMA_VERSION = 1

# AUTOINCREMENT: an evicted task's id is never given to another, so lineage stays true.
SCHEMA = f"""
BEGIN;
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    program TEXT NOT NULL,
    inputs TEXT NOT NULL,
    outputs TEXT NOT NULL,
    message TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    program_hash TEXT NOT NULL,
    lines INTEGER NOT NULL,
    step INTEGER NOT NULL,
    is_seed INTEGER NOT NULL,
    "references" TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    solved INTEGER NOT NULL DEFAULT 0,
    thought TEXT NOT NULL DEFAULT ''
);
CREATE INDEX tasks_by_type ON tasks (type, step, lines);
CREATE INDEX tasks_by_program ON tasks (program_hash);
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

DAMAGED = ("malformed", "not a database", "quick_check", "schema")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns SQLite's errors that the user can do something about into a UserError; what is our fault passes through."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        sentence = _sentence(path, " ".join(str(error).split()))
        if sentence is None:
            raise
        raise UserError(sentence) from error


def _sentence(path: Path, error: str) -> str | None:
    if "disk is full" in error or "disk I/O error" in error:
        return _unwritable(path, error)
    if "readonly" in error or "unable to open" in error:
        return f"the task buffer {path} cannot be written ({error}): its directory must exist and be writable, or choose another run_dir"
    if "locked" in error:
        return f"the task buffer {path} is in use ({error}): stop the other run, or choose another run_dir"
    if any(word in error for word in DAMAGED):
        return f"{path} is not a sound task buffer ({error}): remove it, or resume from an earlier checkpoint (resume=PATH)"
    return None


def _unwritable(path: Path, why: str) -> str:
    return (
        f"the task buffer {path} cannot be written ({why}): free space on that disk, or point run_dir at another one, "
        "and run the same command again; every finished write is kept"
    )


def open_database(path: Path) -> sqlite3.Connection:
    """Opens or creates the buffer's database and checks it. Transactions are the caller's; threads may share it under a lock."""
    with explained(path):
        database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            if not database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                database.executescript(SCHEMA)
            _check(database)
        except BaseException:
            database.close()
            raise
        return database


def _check(database: sqlite3.Connection) -> None:
    verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"quick_check: {verdict}")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"schema version {version}, expected {SCHEMA_VERSION}")


def image_of(database: sqlite3.Connection) -> bytes:
    """The whole database as the bytes of one file that needs no journal beside it. The caller holds off writers."""
    image = bytearray(database.serialize())
    # The header's two versions, 2 in WAL mode, which cannot be opened in a read-only directory (https://sqlite.org/c3ref/deserialize.html).
    image[18:20] = b"\1\1"
    return bytes(image)


def write_image(image: bytes, to: Path) -> None:
    """Makes the image the database at `to`, where none may be open: written aside, flushed and renamed. UserError when it cannot be written."""
    aside = to.with_name(to.name + ".partial")
    try:
        aside.write_bytes(image)  # over what an earlier run that was killed may have left
        _flush(aside)
        for suffix in ("-wal", "-shm"):  # of the database that is replaced: SQLite would replay them onto the new file
            to.with_name(to.name + suffix).unlink(missing_ok=True)
        os.replace(aside, to)
        _flush(to.parent)
    except OSError as error:
        raise UserError(_unwritable(to, error.strerror or str(error))) from error
    finally:
        if aside.is_file():
            aside.unlink()


def read_image(backup: Path) -> bytes:
    """The image that is stored at `backup`, checked. UserError when it is missing or damaged."""
    if not backup.is_file():
        raise UserError(f"there is no task buffer at {backup}: the checkpoint is incomplete; resume from an earlier one (resume=PATH)")
    with explained(backup), closing(sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as source:
        _check(source)
        return image_of(source)


def _flush(path: Path) -> None:
    """fsync of a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
