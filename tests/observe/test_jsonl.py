"""JSON lines survive kills, rewinds and full disks."""

import errno
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.errors import UserError
from azr_nemo.observe.jsonl import JsonlLog, encode, read_rows


def rows_of(steps, path):
    log = JsonlLog(path)
    log.append({"step": step, "value": step / 2} for step in steps)
    return log


def test_what_is_appended_is_read_back_in_order(tmp_path):
    rows_of([1, 2], tmp_path / "a" / "log.jsonl").append([{"step": 3, "text": "a\nb\u2028c\ud800"}])
    rows = list(read_rows(tmp_path / "a" / "log.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[2]["text"] == "a\nb\u2028c\ud800"


def test_every_cut_of_the_file_reads_as_its_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    rows_of([1, 2, 3], path).close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert [row["step"] for row in read_rows(path)] == list(range(1, whole[:cut].count(b"\n") + 1))


def test_reopening_cuts_a_torn_line_off_and_goes_on_after_it(tmp_path):
    path = tmp_path / "log.jsonl"
    rows_of([1, 2], path).close()
    path.write_bytes(path.read_bytes()[:-5])
    rows_of([7], path).close()
    assert [row["step"] for row in read_rows(path)] == [1, 7]


def test_a_file_that_is_nothing_but_a_torn_line_becomes_empty(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "va')
    JsonlLog(path).close()
    assert path.read_bytes() == b""


@given(steps=st.lists(st.integers(0, 9)), to=st.integers(-1, 10))
def test_rewind_keeps_exactly_the_rows_up_to_the_step(steps, to, tmp_path_factory):
    path = tmp_path_factory.mktemp("rewind") / "log.jsonl"
    log = rows_of(steps, path)
    log.rewind(to)
    log.append([{"step": 99}])
    log.close()
    assert [row["step"] for row in read_rows(path)] == [step for step in steps if step <= to] + [99]
    assert [file.name for file in path.parent.iterdir()] == ["log.jsonl"]


def test_a_failed_rewind_leaves_the_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    log = rows_of([1, 2, 3], path)

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("azr_nemo.observe.jsonl.os.fsync", refuse)
    with pytest.raises(UserError, match=r"log\.jsonl \(No space left on device\).*run_dir"):
        log.rewind(1)
    log.append([{"step": 4}])
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4]
    assert os.listdir(tmp_path) == ["log.jsonl"]


def test_a_disk_that_fills_in_mid_line_leaves_the_earlier_lines_whole(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    log = rows_of([1], path)
    real = os.write

    def five_bytes_then_full(fd, data):
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:5])

    monkeypatch.setattr("azr_nemo.observe.jsonl.os.write", five_bytes_then_full)
    with pytest.raises(UserError, match="No space left on device"):
        log.append([{"step": 2, "value": "long enough"}])
    monkeypatch.undo()
    log.append([{"step": 3}])
    assert [row["step"] for row in read_rows(path)] == [1, 3]


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*run_dir"):
        JsonlLog(tmp_path / "file" / "log.jsonl")


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"time": 3}', '{"step": "two"}'])
def test_damage_before_the_last_line_is_named_by_its_number(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match=r"line 2 of .*log\.jsonl"):
        list(read_rows(path))
    with pytest.raises(UserError, match="line 2"):
        JsonlLog(path).rewind(5)


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        list(read_rows(tmp_path / "none.jsonl"))


def test_what_json_cannot_say_becomes_null():
    row = {"step": 1, "nan": math.nan, "deep": [{"inf": math.inf}, (-math.inf, 2.5)]}
    assert json.loads(encode(row)) == {"step": 1, "nan": None, "deep": [{"inf": None}, [None, 2.5]]}


def test_closing_twice_is_harmless(tmp_path: Path):
    log = JsonlLog(tmp_path / "log.jsonl")
    log.close()
    log.close()
