"""Seed files are validated by running them here; what is refused has a reason."""

import json

import pytest
from sample_tasks import FakeExecutor, adder

from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.records import export_jsonl
from azr_nemo.selfplay.seed_files import SeedCounts, load_seeds
from azr_nemo.settings.schema import SelfPlayConfig
from azr_nemo.tasks.task import TaskType

DEDUCTION, ABDUCTION, INDUCTION = TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION
IMPORTS = SelfPlayConfig().imports


@pytest.fixture
def buffer(tmp_path):
    with TaskBuffer(tmp_path / "tasks.sqlite", capacity=1000) as buffer:
        yield buffer


def triplet(number, output, **changes):
    return {"snippet": adder(number), "input": "1", "output": output, "imports": []} | changes


def code_f(number, inputs, outputs):
    return {"snippet": adder(number), "inputs": inputs, "outputs": outputs, "message": "Add.", "imports": []}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path, buffer, executor=None, pairs=10):
    return load_seeds([path], buffer, executor or FakeExecutor(), IMPORTS, Limits(), pairs)


def test_a_triplet_becomes_a_seed_of_both_types(tmp_path, buffer):
    report = load(write(tmp_path / "s.jsonl", triplet(1, "2"), triplet(2, "3")), buffer)
    assert report.counts == {("s.jsonl", type): SeedCounts(rows=2, accepted=2) for type in (DEDUCTION, ABDUCTION)}
    assert [(s.task.output, s.step, s.is_seed) for s in buffer.tasks(ABDUCTION)] == [("2", 0, True), ("3", 0, True)]


@pytest.mark.parametrize("stored", ["", "9", "'aaa...bbb'", "[1, 2", "[1] < 2"])
def test_a_stored_output_that_is_not_what_runs_is_replaced(tmp_path, buffer, stored):
    report = load(write(tmp_path / "s.jsonl", triplet(1, stored)), buffer)
    assert report.counts["s.jsonl", DEDUCTION] == SeedCounts(rows=1, accepted=1, output_replaced=1)
    assert buffer.tasks(DEDUCTION)[0].task.output == "2"


def test_an_output_in_another_notation_is_the_same_output(tmp_path, buffer):
    assert load(write(tmp_path / "s.jsonl", triplet(1, " 0x2 ".strip())), buffer).counts["s.jsonl", DEDUCTION].output_replaced == 0


def test_each_refusal_is_counted_with_its_reason_and_named_with_its_line(tmp_path, buffer):
    rows = [
        triplet(1, "2"),
        triplet(2, "3", snippet="def g(x):\n    return x"),
        triplet(3, "4", snippet="import os\ndef f(x):\n    return os.getcwd()"),
        triplet(4, "5", input="1) + (2"),
        triplet(5, "6", snippet="def f(x):\n    return undefined"),
    ]
    report = load(write(tmp_path / "s.jsonl", *rows), buffer)
    counts = report.counts["s.jsonl", ABDUCTION]
    assert (counts.rows, counts.accepted, counts.refused.total()) == (5, 1, 4)
    assert [row.line for row in report.refused] == [2, 3, 4, 5]
    assert all(row.reason for row in report.refused)
    assert counts.refused["error"] == 1
    assert buffer.count() == 2


def test_nothing_that_fails_the_static_checks_is_run(tmp_path, buffer):
    executor = FakeExecutor()
    load(write(tmp_path / "s.jsonl", triplet(1, "2", snippet="import os\ndef f(x):\n    return os.getcwd()")), buffer, executor)
    assert executor.requests == []


def test_duplicates_are_counted_not_refused(tmp_path, buffer):
    report = load(write(tmp_path / "s.jsonl", triplet(1, "2"), triplet(1, "2")), buffer)
    assert report.counts["s.jsonl", DEDUCTION] == SeedCounts(rows=2, accepted=1, duplicates=1)
    assert load(tmp_path / "s.jsonl", buffer).counts["s.jsonl", DEDUCTION] == SeedCounts(rows=2, duplicates=2)


def test_induction_rows_keep_the_first_pairs_and_need_two(tmp_path, buffer):
    numbers = [str(i) for i in range(6)]
    rows = [code_f(0, numbers, numbers), code_f(1, ["1"], ["2"])]
    report = load(write(tmp_path / "f.jsonl", *rows), buffer, pairs=4)
    assert report.counts["f.jsonl", INDUCTION].refused == {"too_few_pairs": 1}
    (stored,) = buffer.tasks(INDUCTION)
    assert stored.task.inputs == stored.task.outputs == ("0", "1", "2", "3")


def test_a_repeated_input_is_dropped_and_a_message_with_the_program_is_refused(tmp_path, buffer):
    telling = code_f(7, ["1", "2"], ["8", "9"]) | {"message": "It is\n" + adder(7)}
    report = load(write(tmp_path / "f.jsonl", code_f(0, ["1", "1 ", "2"], ["1", "1", "2"]), telling), buffer)
    assert report.counts["f.jsonl", INDUCTION].refused == {"message_carries_program": 1}
    assert buffer.tasks(INDUCTION)[0].task.inputs == ("1", "2")


def test_a_broken_row_stops_before_the_buffer_changes(tmp_path, buffer):
    good, broken = write(tmp_path / "good.jsonl", triplet(1, "2")), write(tmp_path / "broken.jsonl", triplet(2, "3"), {"snippet": 1})
    executor = FakeExecutor()
    with pytest.raises(UserError, match=r"broken.jsonl, line 2: "):
        load_seeds([good, broken], buffer, executor, IMPORTS, Limits(), 10)
    assert buffer.count() == 0
    assert executor.requests == []


def test_a_dead_sandbox_leaves_the_buffer_as_it_was(tmp_path, buffer):
    def die(request):
        if "2" in request.program:
            raise ExecutorUnavailable("gone")
        return FakeExecutor().answer(request)

    with pytest.raises(ExecutorUnavailable):
        load(write(tmp_path / "s.jsonl", triplet(1, "2"), triplet(2, "3")), buffer, FakeExecutor(die))
    assert buffer.count() == 0


def test_the_report_is_a_table_and_json(tmp_path, buffer):
    report = load(write(tmp_path / "s.jsonl", triplet(1, "2"), triplet(2, ""), triplet(3, "4", snippet="def f(x):\n    return y")), buffer)
    assert report.rows()[0] == ("s.jsonl", "deduction", "3", "2", "1", "0", "1", "error 1")
    assert {len(row) for row in report.rows()} == {len(report.HEADER)}
    assert report.sentences()[0] == (
        "s.jsonl, deduction: 2 of 3 rows accepted; 1 of them with the output that they gave here; refused: error 1"
    )
    told = json.loads(json.dumps(report.as_json()))
    assert told["counts"][0]["refused"] == {"error": 1}
    assert told["refused"][0]["line"] == 3


# The table of docs/seeds.md.
ACCEPTED = {"7b_coder_seed_io": 248, "llama_64_seed_io": 47, "7b_coder_code_f_seed_io": 240, "llama_64_code_f_seed_io": 45}


@pytest.mark.slow
def test_the_published_seed_files_are_mostly_accepted_and_every_refusal_has_a_reason(shared_data, buffer, tmp_path):
    files = sorted(shared_data.glob("*_seed_io.jsonl"))
    with LocalPool(workers=2) as executor:
        report = load_seeds(files, buffer, executor, IMPORTS, Limits(wall_s=5.0, cpu_s=5.0), 10)
        for row in [report.HEADER, *report.rows()]:
            print(" | ".join(row))
        assert len(report.counts) == 6
        for (file, _), counts in report.counts.items():
            assert counts.rows == counts.accepted + counts.duplicates + counts.refused.total()
            assert abs(counts.accepted - ACCEPTED[file.removesuffix(".jsonl")]) <= 3, "a few depend on the version of Python, no more"
        assert all(row.reason for row in report.refused)
        # What was accepted holds again, with nothing left to replace.
        export_jsonl(buffer, tmp_path / "again.jsonl")
        with TaskBuffer(tmp_path / "again", capacity=1000) as second:
            again = load_seeds([tmp_path / "again.jsonl"], second, executor, IMPORTS, Limits(wall_s=5.0, cpu_s=5.0), 10)
            assert again.refused == [], "a row that was accepted a moment ago is refused: a limit, a worker or the program is unsteady"
            assert [(c.accepted, c.output_replaced) for c in again.counts.values()] == [(c.rows, 0) for c in again.counts.values()]
            assert {s.task for s in second.tasks()} == {s.task for s in buffer.tasks()}
