"""`azr-nemo report` as a user meets it, and `--live` in a browser while a run goes on."""

import json
import signal
import socket
import subprocess
import sys

import process_trees
import pytest
import requests
import synthetic
from opened import PATIENCE_MS
from playwright.sync_api import expect
from typer.testing import CliRunner

from azr_nemo.cli import app
from azr_nemo.errors import UserError
from azr_nemo.observe.report.live import LiveReport
from azr_nemo.observe.report.page import PARTS, SCRIPTS, page, write
from azr_nemo.observe.report.read import Reader


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def refusal(*arguments) -> str:
    result = report(*arguments)
    assert isinstance(result.exception, UserError)
    return str(result.exception)


def test_the_report_lands_in_the_runs_directory_and_its_path_is_printed(small_run):
    result = report(small_run)
    assert result.exit_code == 0, result.output
    assert result.output.replace("\n", "") == str(small_run / "report.html")
    assert (small_run / "report.html").read_text().startswith("<!doctype html>")


def test_out_names_another_place_and_nothing_else_is_left_there(small_run, tmp_path):
    assert report(small_run, "--out", tmp_path / "out" / "page.html").exit_code != 0
    (tmp_path / "out").mkdir()
    assert report(small_run, "--out", tmp_path / "out" / "page.html").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["page.html"]


def test_what_the_user_can_mend_is_one_sentence(small_run, tmp_path):
    assert "holds no metrics.jsonl" in refusal(tmp_path / "none")
    assert "holds no metrics.jsonl" in refusal(small_run, tmp_path / "none")
    assert "expected a writable place with free space; give another with --out" in refusal(
        small_run, "--out", tmp_path / "no" / "page.html"
    )
    assert "leave out --out, or --live" in refusal(small_run, "--live", "--out", tmp_path / "page.html")
    assert "--port is of --live" in refusal(small_run, "--port", 8000)
    assert "holds no metrics.jsonl" in refusal(tmp_path / "none", "--live")


def test_a_port_that_is_taken_is_a_sentence(small_run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be had" in refusal(small_run, "--live", "--port", taken.getsockname()[1])


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    write("before", tmp_path / "report.html")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        write("after", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_without_plotly_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"azr-nemo\[report\]"):
        page("run", {})


@pytest.fixture
def live(small_run):
    """The address of a live report of the small run, and the process that serves it."""
    command = [sys.executable, "-m", "azr_nemo", "report", str(small_run), "--live"]
    with process_trees.Process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + process.stdout.read()
        yield line.split()[0], process


@pytest.mark.slow
def test_a_live_report_changes_as_the_run_goes_on_and_asks_nobody_else(live, small_run, chromium):
    address, _ = live
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    asked, said = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.goto(f"{address}/#task-0-2")
    opened.locator("#task h3", has_text="#2 · deduction").wait_for()
    opened.fill("#search", "return")
    assert "small: 10 steps" in opened.text_content("#learned")

    synthetic.metrics(small_run, 15)
    synthetic.tasks(small_run / "buffer.sqlite", [{"id": 4, "step": 11, "references": [2]}])
    synthetic.rollouts(small_run, 11, [{"task": 2, "completion": "a new answer"}])
    opened.locator("#learned", has_text="small: 15 steps").wait_for()
    expect(opened.locator("#count")).to_have_text("4 of 4 tasks")
    opened.locator("#task", has_text="a new answer").wait_for()
    assert opened.input_value("#search") == "return", "what the reader was doing stays"
    assert opened.evaluate("document.activeElement.id") == "search"
    assert opened.evaluate("document.querySelector('#held-out .plot').data[0].x.at(-1)") == 15
    context.close()
    assert all(url.startswith(address) for url in asked)
    assert not said, said


def test_a_live_report_answers_to_this_machine_alone(live):
    address, _ = live
    assert requests.get(address, timeout=30).status_code == 200
    elsewhere = requests.get(f"{address}/blocks", headers={"Host": "evil.example"}, timeout=30)
    assert elsewhere.status_code == 400
    assert requests.get(f"{address}/blocks/../../etc/passwd", timeout=30).status_code == 404
    assert requests.post(f"{address}/blocks", timeout=30).status_code == 405


def test_a_live_report_ends_at_once_when_asked_to(live):
    _, process = live
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert process.stdout.read() == ""


def test_a_run_that_is_gone_is_said_and_may_come_back(live, small_run):
    address, _ = live
    (small_run / "metrics.jsonl").rename(small_run / "aside")
    gone = requests.get(f"{address}/blocks", timeout=30)
    assert gone.status_code == 503
    assert "holds no metrics.jsonl" in gone.text
    (small_run / "aside").rename(small_run / "metrics.jsonl")
    assert requests.get(f"{address}/blocks", timeout=30).status_code == 200


def test_nothing_is_read_again_while_nothing_changes(small_run, monkeypatch):
    reader = Reader(small_run, "run")
    live = LiveReport([reader])
    before = live.hashes()
    monkeypatch.setattr(reader, "read", lambda: pytest.fail("read again"))
    assert live.hashes() == before


def test_only_the_blocks_that_changed_have_another_hash(small_run):
    live = LiveReport([Reader(small_run, "run")])
    before = dict(live.hashes())
    synthetic.rollouts(small_run, 11, [{"task": 2, "completion": "a new answer"}])
    after = live.hashes()
    assert {name for name in after if after[name] != before.get(name)} == {"overview", "answers-0-0"}
    assert json.loads(live.block("answers-0-0"))["2"]["answers"][0]["text"] == "a new answer"
    assert live.block("nothing") is None


def test_the_pages_parts_are_in_the_package_which_a_wheel_takes_but_for_what_git_ignores():
    parts = [PARTS / name for name in ("report.html", "report.css", *SCRIPTS)]
    assert sorted(PARTS.iterdir()) == sorted(parts)
    ignored = process_trees.run(["git", "check-ignore", *parts], cwd=PARTS, timeout=60)
    assert ignored.returncode == 1, "git would leave one of them out"
