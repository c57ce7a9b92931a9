"""An answer that lost a byte on its way is not read, whatever was lost; what is read is what was said."""

import base64
import hashlib
import json
import sys
import zlib

import process_trees
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.sandbox import payload
from azr_nemo.sandbox.executor import Outcome, Status
from azr_nemo.sandbox.payload import Unreadable, read_answer, read_outcomes


def line(answer: object) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(answer).encode()))
    return f"azr-outcomes {len(packed)} {hashlib.sha256(packed).hexdigest()} {packed.decode()}\n"


@given(st.lists(st.text(max_size=30), max_size=5), st.text(alphabet="abc \n", max_size=40), st.text(alphabet="abc \n", max_size=40))
def test_an_answer_is_found_among_other_output(texts, before, after):
    assert read_answer(f"{before}\n{line({'results': texts})}{after}") == {"results": texts}


@given(st.data())
def test_an_answer_with_any_byte_lost_or_changed_is_unreadable(data):
    whole = line({"results": data.draw(st.lists(st.integers(), max_size=20)), "hash": 1}).rstrip("\n")
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(st.sampled_from([whole[:place], whole[:place] + whole[place + 1 :], whole[:place] + "~" + whole[place + 1 :]]))
    with pytest.raises(Unreadable):
        read_answer(damaged)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_output_is_read_or_unreadable(text):
    with pytest.raises(Unreadable):
        read_answer(text)


def test_an_answer_that_unpacks_to_gigabytes_is_unreadable():
    packed = base64.b64encode(zlib.compress(b" " * (payload.LARGEST + 100) + b"{}", 9))
    with pytest.raises(Unreadable):
        read_answer(f"azr-outcomes {len(packed)} {hashlib.sha256(packed).hexdigest()} {packed.decode()}")


GOOD = ["ok", "7", None, 0.1, 0.2]


@pytest.mark.parametrize(
    "row",
    [
        [], None, "ok", GOOD[:4], [*GOOD, 1], ["right", *GOOD[1:]], [None, *GOOD[1:]], [["ok"], *GOOD[1:]], ["ok", None, None, 0.1, 0.2],
        ["ok", 7, None, 0.1, 0.2], ["error", "7", "x", 0.1, 0.2], ["ok", "7", 5, 0.1, 0.2], ["ok", "7", None, -1, 0.2],
        ["ok", "7", None, float("nan"), 0.2], ["ok", "7", None, float("inf"), 0.2], ["ok", "7", None, "0", 0.2],
    ],
)  # fmt: skip
def test_a_row_that_no_executor_gives_is_unreadable(row):
    with pytest.raises(Unreadable):
        read_outcomes([GOOD, row], 2)


def test_rows_become_outcomes_and_their_number_must_be_right():
    assert read_outcomes([GOOD, ["timeout", None, "late", 1, 2]], 2) == [
        Outcome(Status.OK, "7", None, 0.1, 0.2),
        Outcome(Status.TIMEOUT, None, "late", 1.0, 2.0),
    ]
    for rows in ([GOOD], None, {}, [GOOD] * 3):
        with pytest.raises(Unreadable):
            read_outcomes(rows, 2)


def test_the_script_is_ascii_small_and_needs_nothing_of_this_project():
    text = payload.script()
    assert text.isascii()
    assert len(text) < 32_000
    task = {
        "program": "def f(x):\n    return x", "inputs": ["1"], "runs": 1, "wall_s": 20.0, "cpu_s": 20.0, "memory_mb": 256, "output_chars": 99,
        "filters": {},
    }  # fmt: skip
    ran = process_trees.run([sys.executable, "-I", "-S", "-c", text], said=json.dumps(task), cwd="/", timeout=60)
    assert ran.stderr == ""
    assert [row[:2] for row in read_answer(ran.stdout)["results"]] == [["ok", "1"]]
