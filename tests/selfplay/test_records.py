"""Tasks as JSON lines: what is written can be read, in our schema and in the reference's, and broken rows are named."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_tasks import adder, adder_task

from azr_nemo.errors import UserError
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.records import export_jsonl, import_lines, read_jsonl
from azr_nemo.tasks.task import Task, TaskType

DEDUCTION, ABDUCTION, INDUCTION = TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION
TRIPLET = {"snippet": adder(1), "input": "1", "output": "2", "imports": []}
CODE_F = {"snippet": adder(1), "inputs": ["1", "2"], "outputs": ["2", "3"], "message": "Adds one.", "imports": []}
NATIVE = {"type": "abduction", "program": adder(1), "inputs": ["1"], "outputs": ["2"]}


def write(path: Path, *rows) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def tasks_of(path: Path) -> list[Task]:
    return [Task(type, r.program, r.inputs, r.outputs, r.message) for r in read_jsonl(path) for type in r.types]


def filled(path: Path, tasks) -> TaskBuffer:
    buffer = TaskBuffer(path, capacity=10_000)
    with buffer.transaction():
        for task in tasks:
            buffer.add(task, step=0)
    return buffer


def test_our_own_schema_keeps_what_the_buffer_knows(tmp_path):
    task = Task(INDUCTION, "def f(s):\n    return s  # é", ("'é'", "'\u2028'"), ("'é'", "'\u2028'"), "m")
    with TaskBuffer(tmp_path / "b", capacity=9) as buffer:
        buffer.add(adder_task(1), step=0, seed=True)
        id = buffer.add(task, step=4, references=[1], thought="hm")
        buffer.record(id, 1, 2)
        assert export_jsonl(buffer, tmp_path / "out.jsonl") == 2
    assert tasks_of(tmp_path / "out.jsonl") == [adder_task(1), task]
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    assert {key: row[key] for key in ("step", "seed", "references", "attempts", "solved", "thought")} == {
        "step": 4, "seed": False, "references": [1], "attempts": 2, "solved": 1, "thought": "hm",
    }  # fmt: skip


def test_the_reference_schema_makes_one_row_of_a_triplet_that_is_both_tasks(tmp_path):
    program = "import math\n\ndef f(x):\n    return math.floor(x)"
    triplet = Task(DEDUCTION, program, ("1.5",), ("1",))
    with filled(tmp_path / "b", [triplet, replace(triplet, type=ABDUCTION), adder_task(2, ABDUCTION), adder_task(3, INDUCTION)]) as buffer:
        assert export_jsonl(buffer, tmp_path / "seed_io.jsonl", "reference", (DEDUCTION, ABDUCTION)) == 2
        assert export_jsonl(buffer, tmp_path / "code_f_seed_io.jsonl", "reference", (INDUCTION,)) == 1
    first, _ = map(json.loads, (tmp_path / "seed_io.jsonl").read_text().splitlines())
    expected = {"snippet": program, "input": "1.5", "output": "1", "imports": ["import math"], "original_snippet": program}
    assert first == expected | {"composite_functions": []}
    assert json.loads((tmp_path / "code_f_seed_io.jsonl").read_text()).keys() == CODE_F.keys()


def test_a_triplet_is_read_as_deduction_and_abduction_and_a_code_f_row_as_induction(tmp_path):
    triplet, code_f = read_jsonl(write(tmp_path / "rows", TRIPLET, "", CODE_F))
    assert (triplet.types, triplet.inputs, triplet.outputs) == ((DEDUCTION, ABDUCTION), ("1",), ("2",))
    assert (code_f.types, code_f.inputs, code_f.message, code_f.line) == ((INDUCTION,), ("1", "2"), "Adds one.", 3)


@pytest.mark.parametrize(
    ("snippet", "imports", "program"),
    [
        ("def f(x): return math.pi", ["import math"], "import math\ndef f(x): return math.pi"),
        ("import math\ndef f(x): return math.pi", ["import math"], "import math\ndef f(x): return math.pi"),
        ("import  math\ndef f(x): return x", ["import math"], "import  math\ndef f(x): return x"),
        ("def f(x): return 'import math'", ["import math", "import math"], "import math\ndef f(x): return 'import math'"),
        ("def f(:", ["import math"], "import math\ndef f(:"),
    ],
)
def test_listed_imports_are_put_in_front_unless_the_snippet_has_them(tmp_path, snippet, imports, program):
    (record,) = read_jsonl(write(tmp_path / "rows", TRIPLET | {"snippet": snippet, "imports": imports}))
    assert record.program == program


def test_a_row_without_imports_is_read(tmp_path):
    (record,) = read_jsonl(write(tmp_path / "rows", {key: TRIPLET[key] for key in ("snippet", "input", "output")}))
    assert record.program == adder(1)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"snippet": ', "Expecting value"),
        ("[1]", "expected a JSON object, found list"),
        ({"snippet": "x", "input": "1"}, r"lacks output \(expected the keys snippet, input, output\)"),
        ({"question": "?"}, "lacks snippet, input, output"),
        ({key: CODE_F[key] for key in ("snippet", "inputs", "outputs")}, "lacks message"),
        (CODE_F | {"inputs": "1"}, "inputs must be a list of texts"),
        (CODE_F | {"inputs": ["1", 2]}, "inputs must be a list of texts"),
        (CODE_F | {"inputs": ["1"]}, "1 inputs and 2 outputs"),
        (CODE_F | {"inputs": [], "outputs": []}, "at least one"),
        (TRIPLET | {"output": 2}, "output is int, expected text"),
        (TRIPLET | {"imports": "import os"}, "imports must be a list of texts"),
        (NATIVE | {"type": "code_e"}, "type is 'code_e', expected deduction, abduction, induction"),
        (NATIVE | {"type": ["abduction"]}, "type is"),
        (NATIVE | {"inputs": ["1", "2"], "outputs": ["1", "2"]}, "abduction task has one input, found 2"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_row_is_named_with_its_line(tmp_path, row, complaint):
    path = write(tmp_path / "rows.jsonl", TRIPLET, "", row)
    with pytest.raises(UserError, match=f"rows.jsonl, line 3: .*{complaint}"):
        list(read_jsonl(path))


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl cannot be read"):
        list(read_jsonl(tmp_path / "absent.jsonl"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="binary is not UTF-8"):
        list(read_jsonl(tmp_path / "binary"))


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_no_other_json_is_taken_for_a_task(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    with pytest.raises(UserError, match=r"any\.jsonl, line 1: "):
        list(read_jsonl(write(path, json.dumps(value))))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with filled(tmp_path / "b", [adder_task(1)]) as buffer, pytest.raises(UserError, match="cannot be written"):
        export_jsonl(buffer, tmp_path / "file" / "out.jsonl")


def test_imports_of_broken_code_are_none():
    assert import_lines("import os; from a import b as c\ndef f(x): import sys") == ["import os", "from a import b as c"]
    assert import_lines("def f(:") == []


@pytest.mark.parametrize("name", [pytest.param("7b_coder", marks=pytest.mark.slow), "llama_64"])
def test_real_seed_files_survive_a_round_trip_in_the_reference_schema(tmp_path, shared_data, name):
    triplets, code_f = shared_data / f"{name}_seed_io.jsonl", shared_data / f"{name}_code_f_seed_io.jsonl"
    originals = {path: [r for r in read_jsonl(path) if _parses(r.program)] for path in (triplets, code_f)}
    with TaskBuffer(tmp_path / "b", capacity=10_000) as buffer:
        with buffer.transaction():
            for record in [*originals[triplets], *originals[code_f]]:
                for type in record.types:
                    buffer.add(Task(type, record.program, record.inputs, record.outputs, record.message), step=0)
        stored = {type: {s.task for s in buffer.tasks(type)} for type in TaskType}
        export_jsonl(buffer, tmp_path / "t.jsonl", "reference", (DEDUCTION, ABDUCTION))
        export_jsonl(buffer, tmp_path / "f.jsonl", "reference", (INDUCTION,))
    read = [*tasks_of(tmp_path / "t.jsonl"), *tasks_of(tmp_path / "f.jsonl")]
    assert {type: {task for task in read if task.type is type} for type in TaskType} == stored
    for type, path in ((DEDUCTION, triplets), (INDUCTION, code_f)):
        assert stored[type] <= {Task(type, r.program, r.inputs, r.outputs, r.message) for r in originals[path]}
        assert len(stored[type]) > 0.9 * len(originals[path])


def _parses(program: str) -> bool:
    try:
        ast.parse(program)
    except SyntaxError:
        return False
    return True
