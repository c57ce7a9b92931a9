"""What a child does at its end is told in words, whatever it does: nothing ends the worker, which would end the run."""

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_supervise import CALL, frame, results

from azr_nemo.sandbox.local.jailed.frames import _repr_of


@pytest.mark.parametrize("number", [signal.SIGRTMIN, signal.SIGRTMIN + 1, 50, signal.SIGRTMAX, signal.SIGSYS])
def test_a_death_by_a_signal_without_a_name_is_a_crash(number):
    assert results(lambda pipe, first: os.kill(os.getpid(), number), inputs=1) == [("crashed", None)]


@pytest.mark.parametrize(
    ("claimed", "passed"),
    [  # at most 100 characters here: a number of 90 hexadecimal digits is longer
        ("7", "7"), ("0x7", "7"), ("7 # a comment", "7"), ("(1,\n2)", "(1, 2)"), ("'a' 'b'", "'ab'"), ("1_0", "10"), ("(-0-1j)", "-1j"),
        ("1e999", None), ("...", None), ("[1e999]", None), ("0x" + "f" * 90, None), ("b'a'", "b'a'"), ("set()", "set()"),
    ],
)  # fmt: skip
def test_the_value_that_is_passed_on_is_the_repr_of_what_the_text_says(claimed, passed):
    told = results(lambda pipe, first: os.write(pipe, CALL + frame("result", "ok", claimed, None, 0.1, 0.1)) and None, inputs=1)
    assert told == [("ok", passed) if passed is not None else ("not_literal", None)]


@given(st.text(max_size=40))
def test_any_text_is_written_back_as_a_literal_or_refused(text):
    written = _repr_of(text)
    assert written is None or _repr_of(written) == written


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("{'a', 'b', 'c'}", "{'a', 'b', 'c'}"),
        ("{'c', 'a', 'b'}", "{'a', 'b', 'c'}"),
        ("[{1: {'b', 'a'}}, {'a', 'b'}]", "[{1: {'a', 'b'}}, {'a', 'b'}]"),
        ("{'#', 'a'}", "{'#', 'a'}"),
    ],
)
def test_equal_sets_are_one_text_in_whatever_order_the_child_wrote_them(text, one):
    assert _repr_of(text) == one
