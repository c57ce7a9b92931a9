"""What the worker makes of the frames and the end of a child, whoever wrote them."""

import json
import os
import signal
import struct
import time
from collections.abc import Callable

import process_trees
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.sandbox.local.jailed.frames import STATUSES, Frames, read_segments
from azr_nemo.sandbox.local.jailed.supervise import run_request


class NoTrainer:
    """A control connection on which nothing ever comes."""

    def __init__(self) -> None:
        self.fd, self._other = os.pipe()

    def receive(self) -> None:
        raise AssertionError("nothing was sent")

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._other)


def frame(*parts: object) -> bytes:
    body = json.dumps(parts, separators=(",", ":")).encode()
    return struct.pack("<I", len(body)) + body


CALL, SEVEN = frame("call"), frame("result", "ok", "7", None, 0.1, 0.1)


def results(behave: Callable[[int, int], None], inputs: int = 3, runs: int = 1, wall_s: float = 10.0) -> list[tuple[str, str | None]]:
    """Statuses and values of a request whose children do `behave(result pipe, index of their first input)`."""
    control = NoTrainer()
    pids: list[int] = []

    def spawn(request: dict, first: int) -> tuple[int, int]:
        reading, writing = os.pipe()
        pid = process_trees.fork()
        if pid:
            pids.append(pid)
            os.close(writing)
            return pid, reading
        try:
            os.close(reading)
            behave(writing, first)
        finally:
            os._exit(0)

    request = {"inputs": ["1"] * inputs, "runs": runs, "wall_s": wall_s, "cpu_s": 10.0, "output_chars": 100}
    try:
        return [(status, value) for status, value, *_ in read_segments(run_request(request, spawn, control), runs, 100)]
    finally:
        control.close()
        for pid in pids:  # no child, no zombie
            with pytest.raises(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def test_each_result_belongs_to_its_input_and_what_comes_after_the_last_is_not_read():
    nine = CALL + frame("result", "ok", "1", None, 0.1, 0.1) + SEVEN * 8
    assert results(lambda pipe, first: os.write(pipe, nine) and None) == [("ok", "1"), ("ok", "7"), ("ok", "7")]


def test_a_death_costs_one_input_and_the_others_get_a_fresh_process():
    def behave(pipe: int, first: int) -> None:
        os.write(pipe, CALL + SEVEN if first == 0 else CALL)
        os.kill(os.getpid(), signal.SIGUSR1)

    assert results(behave) == [("ok", "7"), ("crashed", None), ("crashed", None)]


def test_a_death_before_the_first_call_is_every_inputs():
    spawned = time.monotonic()
    assert results(lambda pipe, first: os._exit(3), inputs=1000) == [("crashed", None)] * 1000
    assert time.monotonic() - spawned < 5


def test_memory_ends_a_process_and_not_the_request():
    out = frame("result", "memory", None, "MemoryError", 0.1, 0.1)
    assert (
        results(lambda pipe, first: os.write(pipe, CALL + (out if first == 0 else SEVEN * 2)) and None)
        == [("memory", None)] + [("ok", "7")] * 2
    )


def test_a_kill_that_nobody_here_sent_is_memory():
    assert results(lambda pipe, first: os.kill(os.getpid(), signal.SIGKILL), inputs=1) == [("memory", None)]


def test_a_result_that_was_there_in_time_counts_however_late_it_is_read(monkeypatch):
    add = Frames.add

    def slowly(frames: Frames, data: bytes) -> bool:
        ended = add(frames, data)
        if not frames.complete:
            time.sleep(0.6)  # the machine gives this process no time; the child ends meanwhile
        return ended

    monkeypatch.setattr(Frames, "add", slowly)

    def behave(pipe: int, first: int) -> None:
        os.write(pipe, CALL)
        time.sleep(0.1)
        os.write(pipe, SEVEN)

    assert results(behave, inputs=1, wall_s=0.5) == [("ok", "7")]


def test_bytes_that_trickle_in_gain_no_time():
    def behave(pipe: int, first: int) -> None:
        os.write(pipe, CALL + struct.pack("<I", 5000))
        while True:
            os.write(pipe, b" ")
            time.sleep(0.005)

    start = time.monotonic()
    assert results(behave, inputs=1, wall_s=0.3) == [("timeout", None)]
    assert time.monotonic() - start < 5


def test_two_runs_must_agree():
    eight = frame("result", "ok", "8", None, 0.1, 0.1)
    assert results(lambda pipe, first: os.write(pipe, CALL + SEVEN + SEVEN + SEVEN + eight) and None, inputs=2, runs=2) == [
        ("ok", "7"),
        ("nondeterministic", None),
    ]


@pytest.mark.parametrize(
    "value",
    ["__import__('os')", "f()", "1 +", "(" * 90, "-" * 90 + "1", "[1", "", " 1", "a", "{1: 2}[1]", "'\ud800'"],
    ids=lambda value: value[:12],
)
def test_a_value_that_is_no_literal_is_not_passed_on(value):
    ((status, passed),) = results(
        lambda pipe, first: os.write(pipe, CALL + frame("result", "ok", value, None, 0.1, 0.1)) and None, inputs=1
    )
    if status == "ok":
        import ast

        ast.literal_eval(passed)
    else:
        assert status == "not_literal"


@pytest.mark.parametrize(
    "noise",
    [
        SEVEN,  # before the call was announced
        CALL + CALL,
        CALL + frame("import", "error", None, "x", 0.1, 0.1),
        frame("import", "ok", "7", None, 0.1, 0.1),
        CALL + frame("result", "right", "7", None, 0.1, 0.1),
        CALL + frame("result", "timeout", None, "x", 0.1, 0.1),
        CALL + frame("result", "ok", 7, None, 0.1, 0.1),
        CALL + frame("result", "ok", "7" * 101, None, 0.1, 0.1),
        CALL + frame("result", "error", "7", "x", 0.1, 0.1),
        CALL + frame("result", "error", None, "x" * 2000, 0.1, 0.1),
        CALL + frame("result", "ok", "7", None, -1.0, 0.1),
        CALL + frame("result", "ok", "7", None, float("nan"), 0.1),
        CALL + frame("result", "ok", "7", None, True, 0.1),
        CALL + frame("result", ["ok"], "7", None, 0.1, 0.1),
        CALL + struct.pack("<I", 1 << 31),
        CALL + struct.pack("<I", 5) + b"[[[[[",
        CALL + struct.pack("<I", 2) + b"\xff\xff",
    ],
)
def test_a_frame_that_no_honest_child_writes_is_a_crash(noise):
    ((status, value),) = results(lambda pipe, first: os.write(pipe, noise) and None, inputs=1)
    assert (status, value) == ("crashed", None)


@settings(max_examples=settings().max_examples * 3 // 5)  # each is two forks of everything that tests have imported
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_one_known_outcome_per_input(noise, announced):
    for status, _ in results(lambda pipe, first: os.write(pipe, (CALL if announced else b"") + noise) and None, inputs=2):
        assert status in STATUSES | {"crashed", "timeout"}
