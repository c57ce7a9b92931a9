"""JSON lines are read in one way, whatever wrote them and whatever the locale is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from azr_nemo.errors import UserError
from azr_nemo.json_lines import objects
from azr_nemo.observe.jsonl import read_rows
from azr_nemo.sandbox.run_rows import read_rows as read_programs
from azr_nemo.selfplay.records import read_jsonl

CASES = Path(__file__).parents[2] / "shared" / "cases"
TEXT = "a\u2028b\u2029c\x85d\x0be é"
ROWS = [{"step": 1, "snippet": TEXT, "input": "1", "output": "2", "program": TEXT, "inputs": [TEXT]}, {"step": 2}]
PROGRAMS = [{"program": TEXT, "inputs": [TEXT]}, {"program": "x", "inputs": []}]


def written(path: Path, rows: list[dict], bom: bool = False, newline: str = "\n") -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + newline for row in rows)
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    return path


def broken(number: int, reason: str) -> str:
    return f"line {number}: {reason}"


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n", "\n \r\n"])
def test_every_reader_splits_at_newlines_alone_and_takes_a_mark_and_crlf(tmp_path, bom, newline):
    path = written(tmp_path / "rows.jsonl", ROWS, bom, newline)
    assert [row for _, row in objects(path, broken)] == ROWS
    if newline.count("\n") == 1:
        assert list(read_rows(path)) == ROWS
    assert list(read_programs(written(path, PROGRAMS, bom, newline))) == PROGRAMS
    triplet = {"snippet": TEXT, "input": "1", "output": "2"}
    assert [record.program for record in read_jsonl(written(path, [triplet], bom, newline))] == [TEXT]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [(b"{", "line 1: Expecting"), (b"3", "line 1: expected a JSON object, found int"), (b"[" * 9999, "line 1: nested too deeply"),
     (b"1" * 9999, "line 1: "), (b"\xff\xfe{\x00", "is not UTF-8 text")],
)  # fmt: skip
def test_what_is_no_row_is_one_sentence(tmp_path, line, sentence):
    (tmp_path / "rows.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UserError, match=sentence):
        list(objects(tmp_path / "rows.jsonl", broken))


def test_a_locale_without_letters_changes_nothing(tmp_path):
    """What a run reads and writes as text is UTF-8 also where Python would take ASCII."""
    written(tmp_path / "rows.jsonl", [{"snippet": TEXT, "input": "1", "output": "2"}])
    (tmp_path / "mine.yaml").write_text("# é\nmodel: {path: /models/é}\n", encoding="utf-8")
    script = f"""if True:
        import locale
        from pathlib import Path
        from azr_nemo.settings.compose import _recipe, from_yaml
        from azr_nemo.selfplay.records import read_jsonl
        assert locale.getpreferredencoding(False) != "UTF-8", "this says nothing"
        assert [record.program for record in read_jsonl(Path("rows.jsonl"))] == [{TEXT!a}]
        assert from_yaml(Path("mine.yaml")).model.path == "/models/\\xe9"
        assert _recipe("mine.yaml")[0] == "mine"
    """
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
@pytest.mark.parametrize("name", ["grade_bom", "grade_crlf", "grade_u2028", "run_bom", "run_u2028", "seed_bom", "seed_crlf", "seed_u2028"])
def test_the_collected_files_are_read_whole(name):
    path = CASES / f"{name}.jsonl"
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = [json.loads(line) for line in lines if line.strip()]
    assert expected
    assert [row for _, row in objects(path, broken)] == expected
    if name.startswith("seed"):
        assert len(list(read_jsonl(path))) == len(expected)
