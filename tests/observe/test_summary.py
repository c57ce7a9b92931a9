"""A run's summary is made from whatever its metrics have, and says so when they have nothing."""

import io
import struct

import pytest
from rich.console import Console

from azr_nemo.errors import UserError
from azr_nemo.observe.curves import PANELS, draw, plot
from azr_nemo.observe.metrics import MetricsLog
from azr_nemo.observe.summary import summarise


def synthetic(run_dir, steps, held_out=True):
    """A run in which everything grows from step to step."""
    log = MetricsLog(run_dir, tensorboard=False)
    for step in range(steps + 1):
        metrics = {}
        if held_out and step in (0, steps):
            for kind in ("deduction", "abduction", "induction"):
                metrics |= {f"eval/{kind}": 0.2 + step / 100, f"eval/{kind}_low": 0.15, f"eval/{kind}_high": 0.35}
        if step:
            for kind in ("deduction", "abduction", "induction"):
                metrics |= {f"propose/{kind}/{name}": step / 1000 for name in ("valid", "new", "novel", "learnable", "reward")}
                metrics |= {f"propose/{kind}/lines": step + 1, f"solve/{kind}/reward": -0.5 + step / 1000, f"buffer/{kind}/size": 40 + step}
            metrics |= {"step/seconds": 10.0, "time/propose_s": 2.0, "time/update_s": 7.0, "time/other_s": 1.0}
            metrics |= {"throughput/generated_tokens_per_s": 800.0, "refused/format": 3, "refused/bad_name": 1}
        if metrics:
            log.write(step, metrics)
    log.close()
    return run_dir


def text(summary, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(summary.table())
    return out.getvalue()


def panels(summary):
    return [axes.get_title() for axes in draw(summary).axes]


def size(path):
    """Width and height from the PNG's own header."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.rstrip().endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", data[16:24])


def test_the_table_shows_the_first_and_the_last_steps(tmp_path):
    shown = text(summarise(synthetic(tmp_path / "run", 40)))
    assert "40 steps in 6:40" in shown
    assert "0.20 [.15, .35]" in shown
    assert "→ 0.60 [.15, .35]" in shown
    assert "6.50 → 36.50" in shown  # lines: the mean of steps 1 to 10, and of 31 to 40
    assert "41 → 80" in shown  # the buffer is counted, not averaged
    assert "update 70%, propose 20%, other 10%" in shown
    assert "format 120, bad name 40" in shown


def test_the_table_fits_a_terminal_of_80_columns(tmp_path):
    shown = text(summarise(synthetic(tmp_path, 8)))
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


def test_metrics_that_are_missing_leave_no_row(tmp_path):
    MetricsLog(tmp_path, tensorboard=False).write(1, {"step/seconds": 1.0})
    shown = text(summarise(tmp_path))
    assert "1 step in 0:01" in shown
    for absent in ("held-out accuracy ", "Time", "Refused", "deduction", "gradient"):
        assert absent not in shown


def test_lines_of_one_step_are_one_step_and_null_is_no_point(tmp_path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write(1, {"step/seconds": 1.0, "train/loss": float("nan")})
    log.write(1, {"eval/deduction": 0.5})
    summary = summarise(tmp_path)
    assert summary.steps == [1]
    assert summary.series["eval/deduction"] == [(1, 0.5)]
    assert "train/loss" not in summary.series


def test_a_run_that_is_being_written_can_be_summarised(tmp_path):
    synthetic(tmp_path, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "step/seco')
    assert summarise(tmp_path).steps == [1, 2, 3]


@pytest.mark.parametrize("rows", [None, "", '{"step": 0, "time": 1.0, "eval/deduction": 0.1}\n'])
def test_a_run_without_a_step_is_a_sentence(tmp_path, rows):
    if rows is not None:
        (tmp_path / "metrics.jsonl").write_text(rows)
    for ask in (lambda: summarise(tmp_path), lambda: plot(tmp_path, tmp_path / "curves.png")):
        with pytest.raises(UserError, match=r"no metrics\.jsonl" if rows is None else "not finished a step yet"):
            ask()
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("steps", [1, pytest.param(3, marks=pytest.mark.slow), pytest.param(90, marks=pytest.mark.slow)])
def test_the_curves_are_a_png_with_all_panels(tmp_path, steps):
    plot(synthetic(tmp_path, steps), tmp_path / "curves.png")
    assert size(tmp_path / "curves.png") == (2256, 1044)
    assert len(panels(summarise(tmp_path))) == len(PANELS)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_panel_without_data_is_left_out(tmp_path):
    titles = panels(summarise(synthetic(tmp_path, 5, held_out=False)))
    assert "Held-out accuracy" not in titles
    assert "Time of a step" in titles
    MetricsLog(tmp_path / "bare", tensorboard=False).write(1, {"step/seconds": 1.0})
    assert panels(summarise(tmp_path / "bare")) == []
    plot(tmp_path / "bare", tmp_path / "bare.png")
    assert size(tmp_path / "bare.png")


def test_the_bars_of_a_step_are_as_high_as_the_step_was_long(tmp_path):
    figure = draw(summarise(synthetic(tmp_path, 90)))
    (axes,) = [axes for axes in figure.axes if axes.get_title() == "Time of a step"]
    heights = {}
    for bar in axes.patches:
        heights[bar.get_x()] = heights.get(bar.get_x(), 0) + bar.get_height()
    assert len(heights) <= 60
    assert list(heights.values()) == pytest.approx([10.0] * len(heights))


def test_a_picture_that_cannot_be_written_is_a_sentence_and_keeps_the_old_one(tmp_path):
    synthetic(tmp_path / "run", 2)
    with pytest.raises(UserError, match=r"cannot write .*curves\.png"):
        plot(tmp_path / "run", tmp_path / "missing" / "curves.png")
