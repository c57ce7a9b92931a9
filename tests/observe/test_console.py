"""What a run shows: on a terminal, in a log file, to a machine."""

import io
import json
import re
import threading
import time

import pytest

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.observe import console as module
from azr_nemo.observe.console import Console, step_text
from azr_nemo.tasks.task import Role, TaskType

METRICS = {
    "step/seconds": 30.0,
    "propose/deduction/valid": 0.75,
    "propose/induction/valid": 0.5,
    "propose/deduction/reward": -0.125,
    "solve/abduction/accuracy": 1.0,
    "throughput/generated_tokens_per_s": 812.4,
}
HOSTILE = "[red]x[/nope] \x1b]0;owned\x07\r\ud800"


class Time:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def console(mode, stream=None):
    stream = stream or Terminal()
    clock = Time()
    return Console(mode, stream, now=clock), stream, clock


def shown(stream):
    """What a person sees: without colours and cursor movement."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def everything(view, text):
    view.start_run(text, [text], steps=3)
    with view.phase("solve" if text.isalpha() else text, 2) as phase:
        phase.advance(1, note=text)
    view.note(text)
    view.sample(Role.SOLVE, TaskType.DEDUCTION, text, text, 1.0)
    view.step_line(1, METRICS)


def test_auto_is_rich_on_a_terminal_and_plain_elsewhere():
    assert Console("auto", Terminal()).mode == "rich"
    assert Console("auto", io.StringIO()).mode == "plain"
    narrow = Terminal()
    narrow.encoding = "ascii"
    assert Console("auto", narrow).mode == "plain"


def test_an_unknown_mode_names_the_setting():
    with pytest.raises(UserError, match=r"logging\.console is 'loud'.*auto, rich, plain, json"):
        Console("loud")


def test_a_step_is_one_line_with_what_it_has():
    text = step_text(3, 10, METRICS, 3723.0)
    assert text == ("step 3/10 | 30.0 s | proposed: valid 0.75/–/0.50, reward -0.12/–/– | solved –/1.00/– | 812 tok/s | ETA 1:02:03")
    assert step_text(3, 0, {}, None) == "step 3"


def test_the_run_ends_at_the_pace_of_its_latest_steps():
    view, stream, _ = console("json")
    view.start_run("run", [], steps=20)
    for step in range(1, 13):
        view.step_line(step, {"step/seconds": 100.0 if step <= 2 else 5.0})
    assert json.loads(stream.getvalue().splitlines()[-1])["eta_s"] == 8 * 5.0


def test_plain_says_nothing_of_short_phases():
    view, stream, clock = console("plain")
    with view.phase("propose", 4) as phase:
        for _ in range(4):
            clock.now += 2
            phase.advance(1)
    assert stream.getvalue() == ""


def test_plain_reports_a_long_phase_every_ten_seconds_with_share_eta_and_facts():
    view, stream, clock = console("plain")
    with view.phase("warm start", 40) as phase:
        for _ in range(40):
            clock.now += 1
            phase.advance(1, loss=1 / (phase.done + 1))
    assert stream.getvalue().splitlines() == [
        "  warm start  10/40 (25%)  ETA 0:30  loss 0.1",
        "  warm start  20/40 (50%)  ETA 0:20  loss 0.05",
        "  warm start  30/40 (75%)  ETA 0:10  loss 0.0333",
        "  warm start  40/40 (100%)  ETA 0:00  loss 0.025",
        "  warm start  ended after 0:40  loss 0.025",
    ]


def test_a_phase_of_unknown_length_counts():
    view, stream, clock = console("plain")
    with view.phase("seeding") as phase:
        clock.now += 10
        phase.advance(3)
    assert stream.getvalue().splitlines()[0] == "  seeding  3 done  ETA -:--"


def test_the_eta_of_a_resumed_phase_counts_only_what_this_process_did():
    view, stream, clock = console("plain")
    with view.phase("seeding", 100, done=80) as phase:
        clock.now += 10
        phase.advance(10)
    assert "90/100 (90%)  ETA 0:10" in stream.getvalue()


def test_a_phase_that_does_not_move_says_so_within_half_a_minute_and_again():
    view, stream, clock = console("plain")
    with view.phase("seeding", 64, done=16), view.phase("seed", 48) as phase:
        for _ in range(65):
            clock.now += 1
            phase.at_most(int(clock.now), 480, tokens=10 * int(clock.now))
            view.beat()
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("  seeding")]
    assert lines == [
        "  seeding  16/64 (25%)  ETA -:--  0:25 so far",
        "  seeding  16/64 (25%)  ETA -:--  0:50 so far",
        "  seeding  ended after 1:05",
    ]
    assert "  seed  0/48 (0%)  ETA at most 7:50  tokens 100" in stream.getvalue()


def test_work_deep_below_a_phase_tells_of_itself():
    view, stream, clock = console("plain")
    with view.phase("update") as phase, progress.heard_by(phase):
        progress.expect(96, "rows")
        for rows in progress.counted([[0] * 24, [0] * 24, [0] * 48], len):
            clock.now += len(rows)
    progress.advance(1)  # nobody listens any more
    assert stream.getvalue().splitlines() == [
        "  update  24/96 rows (25%)  ETA 1:12",
        "  update  48/96 rows (50%)  ETA 0:48",
        "  update  96/96 rows (100%)  ETA 0:00",
        "  update  ended after 1:36",
    ]


def test_a_save_tells_of_the_megabytes_that_are_written():
    view, stream, clock = console("plain")
    with view.phase("save") as phase, progress.heard_by(phase):
        for written, whole in ((100, 0), (225, 450)):
            clock.now += 10
            progress.stand(written, whole, "MB")
    assert stream.getvalue().splitlines()[:2] == ["  save  100 MB done  ETA -:--", "  save  225/450 MB (50%)  ETA 0:20"]


def test_a_thread_lets_it_speak_while_it_is_open(monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    view, stream, clock = console("plain")
    with view, view.phase("load model"):
        clock.now = 26.0
        deadline = time.monotonic() + 10
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stream.getvalue().startswith("  load model  ETA -:--  0:26 so far\n")
    assert not any(thread.name == "console" for thread in threading.enumerate() if not thread.daemon)


def test_plain_explains_the_three_numbers_once():
    view, stream, _ = console("plain")
    view.step_line(1, METRICS)
    view.step_line(2, METRICS)
    assert stream.getvalue().count("deduction/abduction/induction") == 1
    assert [line.split(" |")[0] for line in stream.getvalue().splitlines()[1:]] == ["step 1", "step 2"]


@pytest.mark.parametrize("mode", ["plain", "json", "rich"])
def test_text_of_the_model_cannot_act_on_the_terminal(mode):
    view, stream, _ = console(mode)
    with view:
        everything(view, HOSTILE)
    raw = stream.getvalue()
    assert "\x1b]" not in raw
    assert "\x07" not in raw
    assert "\ud800" not in raw
    assert "[red]x[/nope]" in shown(stream).replace("\n", "")


def test_a_log_in_a_narrow_encoding_gets_escapes_instead_of_an_error():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console("plain", stream).note("saved – żółć")
    assert raw.getvalue() == b"saved \\u2013 \\u017c\\xf3\\u0142\\u0107\n"


def test_json_is_one_object_a_line():
    view, stream, _ = console("json")
    everything(view, "hello")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["start", "phase", "phase", "note", "sample", "step"]
    assert events[0] == {"event": "start", "title": "hello", "lines": ["hello"], "steps": 3, "done": 0}
    assert events[2] | {"elapsed_s": 0} == {
        "event": "phase", "name": "solve", "state": "ended", "done": 1, "total": 2, "elapsed_s": 0, "eta_s": 0.0, "info": {"note": "hello"},
    }  # fmt: skip
    assert events[4] == {"event": "sample", "role": "solve", "type": "deduction", "outcome": "hello", "reward": 1.0, "text": "hello"}
    assert events[5] == {"event": "step", "step": 1, "eta_s": 60.0, "metrics": METRICS}


def test_json_stays_json_when_a_metric_is_not_finite():
    view, stream, _ = console("json")
    view.step_line(1, {"train/loss": float("nan")})
    assert json.loads(stream.getvalue())["metrics"] == {"train/loss": None}


def test_a_stage_is_a_sentence_and_a_bar_while_it_lasts():
    view, stream, _ = console("json")
    with view.stage("converting GGUF to safetensors (about 15 seconds)"):
        pass
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["note", "phase", "phase"]
    assert events[0]["text"] == "converting GGUF to safetensors (about 15 seconds)"
    assert (events[1]["name"], events[2]["state"]) == ("converting GGUF to safetensors", "ended")


def test_a_phase_that_learns_its_length_shows_its_share():
    view, stream, clock = console("plain")
    with view.phase("seed files") as phase:
        phase.expect(40)
        clock.now += 10
        phase.advance(10)
    assert "seed files  10/40 (25%)  ETA 0:30" in stream.getvalue()


def test_a_sample_is_indented_and_clipped():
    view, stream, _ = console("plain")
    view.sample(Role.PROPOSE, TaskType.INDUCTION, "\n".join(f"line {i}" for i in range(99)), "valid", 0.375)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  propose induction: valid, reward 0.38"
    assert all(line.startswith("    | ") for line in lines[1:])
    assert "more lines" in stream.getvalue()
    assert len(lines) < 20


def test_rich_shows_phases_and_gives_the_cursor_back():
    view, stream, _ = console("rich")
    parts = ("hello", "steps", "solve deduction: hello, reward 1.00", "step 1/3", "in the middle", "update", "loss 0.5", "2/4")
    with view:
        everything(view, "hello")
        with view.phase("update", 4) as phase:
            phase.advance(2, loss=0.5)
            view.note("in the middle")
            deadline = time.monotonic() + 10  # bars are drawn four times a second
            while not all(part in shown(stream) for part in parts) and time.monotonic() < deadline:
                time.sleep(0.05)
    assert [part for part in parts if part not in shown(stream)] == []
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def interrupted(view):
    with view, view.phase("update"):
        raise KeyboardInterrupt


def test_an_interrupted_run_gives_the_cursor_back():
    view, stream, _ = console("rich")
    with pytest.raises(KeyboardInterrupt):
        interrupted(view)
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")
