"""A checkpoint is made while the run goes on; the next one, the end and an error wait for it; a failed one ends the run."""

import json
import threading

import pytest

from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written
from azr_nemo.runs.checkpoints import Checkpoints
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.trainer.saver import Saver


class Parts:
    """The ranks' parts of a checkpoint, written when the test says so."""

    def __init__(self, folder):
        self.folder, self.written, self.error = folder, threading.Event(), ""

    def wait(self, limit_s):
        assert self.written.wait(min(limit_s, 60)), "the test forgot to write"
        if self.error:
            raise UserError(self.error)
        (self.folder / "weights").mkdir()
        (self.folder / "weights" / "part").write_text("w")
        return {"weights/part": Written.of(b"w")}


class Engine:
    def __init__(self):
        self.parts = []
        self.error = ""
        self.saving = threading.Event()

    def start_saving(self, folder, asynchronous):
        self.parts.append(Parts(folder))
        if self.error:
            self.parts[-1].error = self.error
            self.parts[-1].written.set()
        self.saving.set()
        return self.parts[-1]


@pytest.fixture
def buffer(tmp_path):
    with TaskBuffer(tmp_path / "buffer.sqlite", capacity=10) as buffer:
        yield buffer


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, keep=2)


@pytest.fixture
def saver(checkpoints, engine):
    return Saver(checkpoints, engine, "seed: 1\n", asynchronous=True, limit_s=60.0)


def test_the_run_goes_on_and_the_checkpoint_holds_the_buffer_of_its_instant(saver, engine, buffer, checkpoints):
    buffer.write_note("step", {"at": 1})
    saver.save(1, buffer)
    buffer.write_note("step", {"at": 2})
    saver.check()
    assert checkpoints.find("auto") is None, "its parts are not written yet"
    engine.parts[0].written.set()
    saver.wait()
    found = checkpoints.find("auto")
    assert found.step == 1
    with TaskBuffer.restore(found.path / "buffer.sqlite", buffer.path.with_name("restored"), capacity=10) as restored:
        assert restored.read_note("step") == {"at": 1}
    assert (found.path / "config.yaml").read_text() == "seed: 1\n"


def test_hashes_are_made_of_what_is_in_memory_and_never_by_reading(saver, engine, buffer, checkpoints, monkeypatch):
    def never(path):
        raise AssertionError(f"{path} was read again")

    with monkeypatch.context() as during:
        during.setattr(Written, "read", never)
        saver.save(1, buffer)
        engine.parts[0].written.set()
        saver.wait()
    saved = checkpoints.find("auto", hashed_below=2).path
    hashes = json.loads((saved / "state.json").read_text())["sha256"]
    assert hashes == {name: Written.read(saved / name).sha256 for name in ("buffer.sqlite", "config.yaml", "weights/part")}


def test_the_next_save_waits_for_the_one_before(saver, engine, buffer, checkpoints):
    saver.save(1, buffer)
    begun = threading.Event()
    threading.Thread(target=lambda: (saver.save(2, buffer), begun.set()), daemon=True).start()
    assert not begun.wait(0.3)
    assert len(engine.parts) == 1, "nobody has copied anything for the second one"
    engine.parts[0].written.set()
    assert begun.wait(60)
    assert checkpoints.find("auto").step == 1
    engine.parts[1].written.set()
    saver.wait()
    assert checkpoints.find("auto").step == 2


def save_and_fail(saver, buffer, error):
    with saver:
        saver.save(1, buffer)
        raise error


def test_the_end_of_the_run_and_an_error_wait_for_the_checkpoint(saver, engine, buffer, checkpoints):
    def write():
        assert engine.saving.wait(60)
        threading.Event().wait(0.3)
        engine.parts[0].written.set()

    threading.Thread(target=write, daemon=True).start()
    with pytest.raises(ValueError, match="a bug"):
        save_and_fail(saver, buffer, ValueError("a bug"))
    assert checkpoints.find("auto").step == 1


def test_stopping_at_once_waits_for_nothing(saver, engine, buffer, checkpoints):
    with pytest.raises(KeyboardInterrupt):
        save_and_fail(saver, buffer, KeyboardInterrupt())
    assert checkpoints.find("auto") is None


def test_a_checkpoint_is_complete_once_the_logs_are_written(checkpoints, engine, buffer):
    written = threading.Event()
    saver = Saver(checkpoints, engine, "seed: 1\n", asynchronous=True, limit_s=60.0, logs=lambda: written.wait(60))
    saver.save(1, buffer)
    engine.parts[0].written.set()
    saver.wait(0.3)
    assert checkpoints.find("auto") is None
    written.set()
    saver.wait()
    assert checkpoints.find("auto").step == 1


def test_a_checkpoint_whose_logs_cannot_be_written_is_none(checkpoints, engine, buffer):
    def full():
        raise UserError("cannot write rollouts (No space left on device)")

    saver = Saver(checkpoints, engine, "seed: 1\n", asynchronous=True, limit_s=60.0, logs=full)
    saver.save(1, buffer)
    engine.parts[0].written.set()
    with pytest.raises(UserError, match=r"the checkpoint of step 1 could not be written .* the disk is full"):
        saver.wait()
    assert checkpoints.find("auto") is None


def test_a_failed_write_ends_the_run_at_its_next_step_and_leaves_the_checkpoint_before(saver, engine, buffer, checkpoints):
    saver.save(1, buffer)
    engine.parts[0].written.set()
    saver.save(2, buffer)
    engine.parts[1].error = "rank 3: the disk broke"
    engine.parts[1].written.set()
    with pytest.raises(UserError, match=r"the checkpoint of step 2 could not be written to .*: rank 3: the disk broke"):
        saver.wait()
    saver.check()  # it is told once
    assert checkpoints.find("auto").step == 1
    assert not list(checkpoints.folder.glob(".writing*"))


def test_two_errors_are_one_sentence(saver, engine, buffer):
    engine.error = "rank 1: full"
    with pytest.raises(UserError, match=r"^the sandbox is gone; and the checkpoint of step 1 could not be written"):
        save_and_fail(saver, buffer, UserError("the sandbox is gone"))


def test_a_directory_is_left_alone_until_all_ranks_have_ended_with_it(saver, engine, buffer, checkpoints, monkeypatch):
    def full(image, to):
        raise UserError("No space left on device")

    monkeypatch.setattr("azr_nemo.trainer.saver.write_image", full)
    saver.save(1, buffer)
    assert not threading.Event().wait(0.2)
    assert list(checkpoints.folder.glob(".writing*")), "another rank still writes here"
    engine.parts[0].written.set()
    with pytest.raises(UserError, match="the disk is full"):
        saver.wait()
    assert not list(checkpoints.folder.glob(".writing*"))


def test_synchronous_saving_is_done_when_save_returns(checkpoints, engine, buffer):
    class Written(Engine):
        def start_saving(self, folder, asynchronous):
            assert not asynchronous
            parts = super().start_saving(folder, asynchronous)
            parts.written.set()
            return parts

    Saver(checkpoints, Written(), "", asynchronous=False, limit_s=60.0).save(1, buffer)
    assert checkpoints.find("auto").step == 1
