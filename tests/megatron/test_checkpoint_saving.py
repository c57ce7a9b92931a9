"""Checkpoints that are written while training goes on."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import training_batch

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.checkpoint import Snapshot, save_checkpoint, take_snapshot
from azr_nemo.megatron.saving import Saving, Writer

MakeActor = Callable[..., Actor]
ModelDir = Callable[..., Path]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "common.pt"}


def test_what_is_written_later_is_what_was_copied(make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path) -> None:
    actor = make_actor()
    actor.update(training_batch(seed=1))
    snapshot = take_snapshot(actor, model_dir(), copy=True)
    save_checkpoint(actor, model_dir(), tmp_path / "now")
    for seed in (2, 3):
        actor.update(training_batch(seed=seed))
    written = snapshot.write(tmp_path / "later")
    assert content(tmp_path / "later") == content(tmp_path / "now")
    assert (tmp_path / "later" / "weights" / "common.pt").stat().st_size == (tmp_path / "now" / "weights" / "common.pt").stat().st_size
    assert written == {str(path.relative_to(tmp_path / "later")): Written.read(path) for path in (tmp_path / "later").rglob("*.*")}


class Slow:
    """Stands for a snapshot whose disk takes as long as the test wants."""

    rank = 0

    def __init__(self) -> None:
        self.writing, self.release = threading.Event(), threading.Event()

    def write(self, directory: Path) -> dict[str, Written]:
        self.writing.set()
        assert self.release.wait(60)
        return {"a": Written(1, "0")}


def test_one_copy_is_in_flight_and_the_next_waits_for_it(make_actor: MakeActor, tmp_path: Path) -> None:
    make_actor()  # starts the job, whose store the writer uses
    writer, first, second = Writer(), Slow(), Slow()
    saving = writer.start(first, tmp_path, asynchronous=True)  # type: ignore[arg-type]
    assert first.writing.wait(60)
    with pytest.raises(UserError, match="rank 0 had not written its part after 0 s"):
        saving.wait(0.0)
    begun = threading.Event()

    def go_on() -> None:
        writer.start(second, tmp_path, asynchronous=True)  # type: ignore[arg-type]
        begun.set()

    threading.Thread(target=go_on, daemon=True).start()
    assert not begun.wait(0.3)
    assert not second.writing.is_set()
    first.release.set()
    assert begun.wait(60)
    assert saving.wait(60.0) == {"a": Written(1, "0")}
    second.release.set()
    writer.wait()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_what_goes_wrong_in_the_thread_is_told_to_rank_0(
    make_actor: MakeActor, model_dir: ModelDir, tmp_path: Path, asynchronous: bool
) -> None:
    snapshot = take_snapshot(make_actor(), model_dir(), copy=True)
    (tmp_path / "file").write_text("in the way")
    saving: Saving = Writer().start(snapshot, tmp_path / "file", asynchronous)
    with pytest.raises(UserError, match=r"the checkpoint .*file cannot be written: .*Not a directory"):
        saving.wait(60.0)
    lost = Writer().start(Broken(), tmp_path, asynchronous)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a bug"):
        lost.wait(60.0)
    shutil.rmtree(tmp_path)


class Broken(Snapshot):
    def __init__(self) -> None:
        pass

    rank = 0  # type: ignore[misc]

    def write(self, directory: Path) -> dict[str, Written]:
        raise ValueError("a bug")
