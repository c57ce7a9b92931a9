"""The command line as a user meets it: what it prints, and that its errors are one sentence and exit code 2."""

import json
import sys

import process_trees
import pytest
from command_line import azr


def assert_sentence(done, text):
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("azr-nemo: ")
    assert text in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [["train"], ["seed"], ["convert"], ["summary"], ["report"], ["rollouts"], ["grade"], ["sandbox", "run"], ["doctor"]]
)
def test_every_command_explains_itself(command):
    done = azr(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_package_is_the_command():
    done = process_trees.run([sys.executable, "-m", "azr_nemo", "--help"], timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    commands = done.stdout.partition("Commands")[2]
    assert commands == azr("--help").stdout.partition("Commands")[2] != ""


def test_a_dry_run_prints_the_resolved_configuration_and_its_arithmetic():
    done = azr("train", "recipe=tiny-1n0g-megatron", "--dry-run")
    assert done.returncode == 0
    assert "path: scratch:tiny" in done.stdout
    assert "# a step: 96 rows in one update" in done.stdout


def test_an_unknown_recipe_is_a_sentence():
    assert_sentence(azr("train", "recipe=none"), "recipe=none is unknown")


def test_a_missing_model_is_a_sentence(tmp_path):
    done = azr("train", "recipe=tiny-1n0g-megatron", "model.path=/nowhere", "warmup.steps=0", f"run_dir={tmp_path}/run")
    assert_sentence(done, "model.path=/nowhere is not a Hugging Face model directory")


def test_a_run_directory_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    assert_sentence(azr("train", "recipe=tiny-1n0g-megatron", f"run_dir={tmp_path}/file/run"), "cannot be written")


def test_sandbox_run_prints_a_row_for_each(tmp_path):
    rows = [{"program": "def f(x):\n    return x + 1", "inputs": ["1", "'a'"]}, {"program": "def f(", "inputs": ["1"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = azr("sandbox", "run", tmp_path / "rows.jsonl")
    first, second = (json.loads(line)["outcomes"] for line in done.stdout.splitlines())
    assert [(o["status"], o["value"]) for o in first] == [("ok", "2"), ("error", None)]
    assert second[0]["status"] == "syntax"
    assert set(first[0]) == {"status", "value", "error", "cpu_s", "wall_s"}


PROGRAM = "def f(x):\n    return x * 2 + 1"
GRADED = [
    ({"task_type": "deduction", "program": PROGRAM, "input": "3", "output": "7", "answer": "7"}, 1),
    ({"task_type": "deduction", "program": PROGRAM, "input": "3", "output": "7", "answer": "8"}, 0),
    ({"task_type": "deduction", "program": "def f(x):\n    return x", "input": "'3'", "output": "'3'", "answer": "'3.0'"}, 0),
    ({"task_type": "deduction", "program": "def f(x):\n    return x", "input": "2", "output": "'2'", "answer": "1+1"}, 0),
    ({"task_type": "abduction", "program": PROGRAM, "input": "3", "output": "7", "answer": "3"}, 1),
    ({"task_type": "abduction", "program": PROGRAM, "input": "3", "output": "7", "answer": "1 + 2"}, 1),
    ({"task_type": "abduction", "program": PROGRAM, "input": "3", "output": "7", "answer": "2) or (1"}, 0),
    ({"task_type": "abduction", "program": PROGRAM, "input": "3", "output": "7", "answer": "0)\n1 == (1"}, 0),
    ({"task_type": "abduction", "program": PROGRAM, "input": "3", "output": "7", "answer": 'print("True") or 1'}, 0),
    ({"task_type": "induction", "program": PROGRAM, "inputs": ["1", "2"], "outputs": ["3", "5"], "answer": PROGRAM}, 1),
    ({"task_type": "induction", "program": PROGRAM, "inputs": ["1", "2"], "outputs": ["3", "5"], "answer": "def f(x):\n    return 3"}, 0),
]


def test_honest_answers_score_one_and_injections_nothing(tmp_path):
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row, _ in GRADED))
    done = azr("grade", tmp_path / "answers.jsonl")
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [score for _, score in GRADED]


def test_a_broken_row_is_named_by_file_and_line(tmp_path):
    (tmp_path / "answers.jsonl").write_text(json.dumps(GRADED[0][0]) + "\n{broken\n")
    assert_sentence(azr("grade", tmp_path / "answers.jsonl"), "answers.jsonl:2 is not a JSON object")


def test_seed_files_are_counted_written_and_reported(tmp_path):
    rows = [{"snippet": PROGRAM, "input": "3", "output": ""}, {"snippet": "def f(x):\n    return y", "input": "1", "output": "1"}]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = azr("seed", "--from", tmp_path / "seeds.jsonl", "--out", tmp_path / "out.jsonl", "--report", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert "refused in seeds.jsonl, abduction: error 1" in done.stdout
    assert [json.loads(line)["outputs"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [["7"], ["7"]]
    assert json.loads((tmp_path / "report.json").read_text())["refused"][0]["line"] == 2


def test_seed_files_with_broken_rows_are_a_sentence(tmp_path):
    (tmp_path / "seeds.jsonl").write_text('{"snippet": 3}\n')
    assert_sentence(azr("seed", "--from", tmp_path / "seeds.jsonl"), "line 1")
