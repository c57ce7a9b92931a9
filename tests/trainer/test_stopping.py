"""A signal asks a run to stop after the step in hand; a second one stops it at once."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import process_trees
import pytest
import torch.distributed as dist
from run_server import shared
from tiny_run import SETTINGS

from azr_nemo.trainer import stopping
from azr_nemo.trainer.stopping import KEY, StoppedAtOnce, StopRelay, StopRequest


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # a handler runs between two of Python's steps


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request_and_its_handler_leaves_with_the_run(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.connect(dist.HashStore())
        stop.check()
        assert stop.requested == ""
        send(number)
        assert stop.requested == signal.Signals(number).name
        with pytest.raises(StoppedAtOnce):
            stop.check()
    assert signal.getsignal(number) == before


def test_the_same_request_may_arrive_twice_and_a_later_one_stops_at_once(monkeypatch):
    monkeypatch.setattr(stopping, "ONE_REQUEST_S", 0.2)
    with StopRequest() as stop:
        stop.connect(dist.HashStore())
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


def test_a_batch_system_that_says_usr1_and_later_term_has_asked_once(monkeypatch):
    monkeypatch.setattr(stopping, "ONE_REQUEST_S", 0.0)
    with StopRequest() as stop:
        stop.connect(dist.HashStore())
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR1):
            send(number)
        send(signal.SIGTERM)
        assert stop.requested == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


def test_who_leaves_with_everything_saved_is_not_stopped_by_its_launcher(monkeypatch):
    monkeypatch.setattr(stopping, "ONE_REQUEST_S", 0.0)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest() as stop:
            stop.connect(dist.HashStore())
            send(signal.SIGTERM)
            stop.leave()
            for _ in range(2):
                send(signal.SIGTERM)
        send(signal.SIGTERM)
    finally:
        for number in stopping.SIGNALS:
            signal.signal(number, before if number == signal.SIGTERM else signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_before_there_is_anything_to_save_the_first_signal_stops():
    with StopRequest() as stop, pytest.raises(StoppedAtOnce):
        send(signal.SIGUSR1)
    assert stop.requested == "SIGUSR1"


def test_rank_0_hears_what_another_rank_was_told():
    store = dist.HashStore()
    with StopRequest() as stop:
        stop.connect(store)
        store.set(KEY, "SIGUSR1")
        assert stop.requested == "SIGUSR1"


def in_a_fork(run: Callable[[], None]) -> int:
    """The exit code of a process that does this and then waits, deaf to Python's handlers, as in a collective."""
    child = process_trees.fork()
    if not child:
        signal.alarm(60)
        run()
        threading.Event().wait()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_another_rank_tells_rank_0_and_goes_on_serving(tmp_path):
    def store() -> dist.Store:
        return dist.FileStore(str(tmp_path / "store"), 2)

    def serve() -> None:
        relay = StopRelay()
        relay.connect(store)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.5)
        os._exit(7 if store().check([KEY]) else 8)

    assert in_a_fork(serve) == 7
    assert store().get(KEY) == b"SIGUSR1"


def test_another_rank_that_has_not_met_the_others_leaves_at_once():
    def start() -> None:
        StopRelay()
        os.kill(os.getpid(), signal.SIGTERM)

    assert in_a_fork(start) == os.EX_TEMPFAIL


def test_another_rank_leaves_at_a_second_request():
    def serve() -> None:
        stopping.ONE_REQUEST_S = 0.1
        StopRelay().connect(dist.HashStore)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)

    assert in_a_fork(serve) == stopping.STOPPED_AT_ONCE


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 240
    while not (path.exists() and text in path.read_text(errors="replace")):
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_stopped_saves_its_step_says_so_and_goes_on(tmp_path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    command = ["train", *SETTINGS, f"run_dir={run_dir}", "selfplay.steps=3", "checkpoint.every=100", "logging.console=json"]
    run = shared().start(command, log)
    wait_for(log, '"name": "propose", "state": "began"')
    for _ in range(3):
        run.kill(signal.SIGUSR1)
    ended = run.wait()
    assert ended.code == 75, ended.output
    assert (run_dir / "outcome").read_text() == "stopped 1 SIGUSR1\n"
    assert "stopped by SIGUSR1 after step 1, which is saved: the same command goes on from there" in ended.output
    ended = shared().start(command, log).wait()
    assert ended.code == 0
    assert "resumed after step 1" in ended.output
    assert (run_dir / "outcome").read_text() == "done 3\n"
    ended = shared().start(command, log).wait()
    assert ended.code == 0
    assert (run_dir / "outcome").read_text() == "done 3\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_stopped_while_it_seeds_goes_on_seeding(tmp_path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    few = ["data.seed_factor=100", "data.seed_rounds=40", "data.seed_batch=2", "selfplay.steps=1"]
    command = ["train", *SETTINGS, f"run_dir={run_dir}", *few, "logging.console=json"]
    run = shared().start(command, log)
    wait_for(log, "in 2 batches")
    run.kill(signal.SIGTERM)
    ended = run.wait()
    assert ended.code == 75, ended.output
    assert (run_dir / "outcome").read_text() == "stopped 0 SIGTERM\n"
    again = tmp_path / "again"
    run = shared().start(command, again)
    wait_for(again, "batches; refused")
    assert "in 1 batches" not in again.read_text()
    run.kill(signal.SIGKILL)
    assert run.wait().code == -signal.SIGKILL
    assert not (run_dir / "outcome").exists(), "a run that was killed has no outcome"
