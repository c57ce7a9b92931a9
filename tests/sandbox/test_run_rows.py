"""Rows in, rows out, in order; a broken row is one sentence that names its line."""

import json
import math

import pytest
from typer.testing import CliRunner

from azr_nemo.cli import app
from azr_nemo.errors import UserError
from azr_nemo.sandbox import run_rows
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.sandbox.executor import Limits, of_timeout
from azr_nemo.settings.schema import ExecutorConfig

ADD = {"program": "def f(x):\n    return x + 1", "inputs": ["1", "'a'"]}


def write(path, *rows) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_each_row_gives_one_row_of_outcomes(pool, tmp_path):
    path = write(tmp_path / "a.jsonl", ADD, "", {"program": "def f(x): return x", "inputs": []})
    first, second = [json.loads(line) for line in run_rows.run_file(path, pool)]
    assert [outcome["status"] for outcome in first["outcomes"]] == ["ok", "error"]
    assert set(first["outcomes"][0]) == {"status", "value", "error", "cpu_s", "wall_s"}
    assert first["outcomes"][0]["value"] == "2"
    assert second == {"outcomes": []}


def test_many_rows_stream_in_order_with_few_in_flight(pool, monkeypatch):
    monkeypatch.setattr(run_rows, "IN_FLIGHT", 4)
    taken = []

    def rows():
        for x in range(30):
            taken.append(x)
            yield {"program": ADD["program"], "inputs": [str(x)]}

    for x, row in enumerate(run_rows.run_rows(rows(), pool, deterministic=True)):
        assert row["outcomes"][0]["value"] == str(x + 1)
        assert len(taken) - x <= 5


@pytest.mark.parametrize(
    "row", ["{", "[]", '{"program": 1, "inputs": []}', '{"program": "x"}', '{"program": "x", "inputs": [1]}', "[" * 5000]
)
def test_a_broken_row_names_file_and_line_after_the_rows_before_it(pool, tmp_path, row):
    path = write(tmp_path / "b.jsonl", ADD, row, ADD)
    printed = run_rows.run_file(path, pool)
    assert "ok" in next(printed)
    with pytest.raises(UserError, match=r"b\.jsonl, line 2: .*expected"):
        next(printed)


def test_a_missing_or_unreadable_file_is_one_sentence(pool, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        list(run_rows.run_file(tmp_path / "none.jsonl", pool))
    (tmp_path / "c.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        list(run_rows.run_file(tmp_path / "c.jsonl", pool))


def test_the_timeout_replaces_wall_and_cpu_limits(pool, tmp_path):
    path = write(tmp_path / "d.jsonl", {"program": "def f(x):\n    while True: pass", "inputs": ["1"]})
    (line,) = run_rows.run_file(path, pool, timeout_s=0.3)
    assert json.loads(line)["outcomes"][0]["status"] == "timeout"
    with pytest.raises(UserError, match="timeout"):
        list(run_rows.run_file(path, pool, timeout_s=0))


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e9])
def test_no_executor_is_given_a_time_limit_that_is_none(tmp_path, seconds):
    """Whoever asks, the command line, the settings or a client of the server, comes by `Limits`."""
    with pytest.raises(UserError, match=r"^--timeout .*: expected seconds above 0 and at most 86400"):
        of_timeout(seconds)
    for name in ("wall_s", "cpu_s"):
        with pytest.raises(UserError, match=name):
            Limits(**{name: seconds})
        with pytest.raises(UserError, match=name):
            make_executor(ExecutorConfig(**{name: seconds}))
    for command in (["grade"], ["sandbox", "run"]):
        refused = CliRunner().invoke(app, [*command, str(tmp_path / "none.jsonl"), f"--timeout={seconds}"]).exception
        assert isinstance(refused, UserError)
        assert str(refused).startswith("--timeout")


@pytest.mark.parametrize(("name", "value"), [("memory_mb", 0), ("memory_mb", 1 << 40), ("output_chars", 0), ("output_chars", 1 << 40)])
def test_other_limits_have_the_settings_bounds(name, value):
    with pytest.raises(UserError, match=name):
        Limits(**{name: value})
