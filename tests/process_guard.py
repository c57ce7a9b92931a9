"""Pytest's side of `process_trees`: the session's mark and its guard, the end of what a test has left running, and the count at the end.

Under pytest-xdist the controller and each worker have a guard and a mark of their own, so that a worker that is killed takes its processes along.
"""

import multiprocessing
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import process_trees
import pytest

LEFT = "left_behind"  # in what a worker hands over
_guard = pytest.StashKey[subprocess.Popen[bytes]]()
_left = pytest.StashKey[list[str]]()
OWN = ("multiprocessing.resource_tracker",)  # python's, which ends with the process that it belongs to


def pytest_configure(config: pytest.Config) -> None:
    os.environ.pop(process_trees.MARK, None)
    mark = f"{uuid.uuid4().hex}/"
    command = [sys.executable, "-I", "-S", process_trees.__file__, mark, str(os.getpid())]
    config.stash[_guard] = subprocess.Popen(command, start_new_session=True)
    config.stash[_left] = []
    os.environ[process_trees.MARK] = mark


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    process_trees.slow = item.get_closest_marker("slow") is not None


@pytest.fixture(autouse=True)
def nothing_outlives_its_test() -> Iterator[None]:
    """Fixtures of a wider scope have started theirs before, and end them."""
    number = process_trees.next_number()
    yield
    process_trees.end_since(number)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """A worker's word for the controller, which alone can fail the session."""
    node.config.stash[_left].extend(getattr(node, "workeroutput", {}).get(LEFT, []))  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)  # pytest-xdist ends its workers before
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a session of which a process is left."""
    process_trees.close_shared()
    for child in multiprocessing.active_children():  # managers and their like, which Python itself ends when it exits
        child.terminate()
        child.join(process_trees.PATIENCE_S)
    guard = session.config.stash[_guard].pid
    found = {*process_trees.alive(process_trees.session_mark()), *process_trees.descendants(os.getpid())} - {guard}
    left = [text for text in map(process_trees.describe, sorted(found)) if not any(name in text for name in OWN)]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[LEFT] = left
    left += session.config.stash[_left]
    session.config.stash[_left] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for text in config.stash[_left]:
        terminalreporter.write_line(f"left behind: {text}", red=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    guard = config.stash[_guard]
    guard.terminate()
    guard.wait()
