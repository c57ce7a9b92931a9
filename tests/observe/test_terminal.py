"""What stands below the lines on a terminal: the latest numbers, and a bar for the run and each phase."""

import io

import rich.console

from azr_nemo.observe.console import Console
from azr_nemo.observe.terminal import RichView, run_panel

METRICS = {
    "step/seconds": 2.0,
    "propose/deduction/valid": 0.75,
    "propose/abduction/learnable": 0.5,
    "solve/induction/accuracy": 0.25,
    "buffer/deduction/size": 1234.0,
    "throughput/generated_tokens_per_s": 8125.4,
    "throughput/programs_per_s": 310.2,
    "memory/peak_rss_gib": 1.26,
}


def drawn(what, width=120):
    out = rich.console.Console(file=io.StringIO(), width=width)
    out.print(what)
    return out.file.getvalue()


def view_of_a_run():
    out = rich.console.Console(file=io.StringIO(), width=120)
    view = RichView(io.StringIO(), out)
    view.title("run", ["line"], 10, 3)
    return view


def row(text, label):
    (found,) = [line for line in text.splitlines() if label in line]
    return found


def test_the_panel_has_every_number_by_type_and_over_all():
    text = drawn(run_panel(METRICS))
    assert row(text, "valid proposals").split()[3:6] == ["75%", "–", "–"]
    assert row(text, "learnable").split()[2:5] == ["–", "50%", "–"]
    assert row(text, "answers right").split()[3:6] == ["–", "–", "25%"]
    assert "1,234" in row(text, "tasks in the buffer")
    assert "8,125 tokens/s" in row(text, "generated")
    assert "310 programs/s" in row(text, "executed")
    assert "1.3 GiB" in row(text, "memory")
    assert "GPU" not in text
    assert "alarm" not in text


def test_a_gpu_has_a_line_once_one_is_used_and_alarms_are_named():
    text = drawn(run_panel({"memory/peak_gpu_gib": 70.5, "alarm/reward_hacking": 1.0, "alarm/entropy": 0.0}))
    assert "70.5 GiB" in row(text, "memory, GPU")
    assert "alarm: reward hacking" in text
    assert "entropy," not in text


def test_a_number_that_is_not_measured_in_a_step_stays():
    view = view_of_a_run()
    view.step(4, "step 4", {"eval/deduction": 0.5}, None)
    view.step(5, "step 5", {"train/entropy": 0.1}, 60.0)
    text = drawn(view.picture())
    assert "50%" in row(text, "held out")
    assert "0.100 nats" in text
    assert "5/10" in row(text, "steps")
    assert "ETA 1:00" in row(text, "steps")


def test_each_open_phase_has_a_bar_with_what_it_was_told():
    view = view_of_a_run()
    console = Console("plain", io.StringIO())
    console._view = view
    with console.phase("propose", 8) as phase:
        phase.advance(2, loss=0.5)
        text = drawn(view.picture())
        assert "2/8" in row(text, "propose")
        assert "loss 0.5" in row(text, "propose")
        phase.expect(16)
        assert "2/16" in row(drawn(view.picture()), "propose")
    assert "propose  " not in drawn(view.picture())


def test_without_a_run_there_are_only_bars():
    view = RichView(io.StringIO(), rich.console.Console(file=io.StringIO(), width=120))
    assert "latest step" not in drawn(view.picture())


def test_a_narrow_terminal_still_shows_every_row():
    text = drawn(run_panel(METRICS), width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "valid" in text
