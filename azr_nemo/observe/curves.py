"""Draws a run: what must be read together in the first row, the rest below it. A panel without data is left out."""

import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from azr_nemo.errors import UserError
from azr_nemo.observe.pictures import PHASES, RAW_STEPS, colours, running_mean, window
from azr_nemo.observe.summary import Points, Summary, summarise

COLUMNS = 4
BARS = 60

Panel = Callable[[Axes, "Summary"], bool]


def draw(summary: "Summary") -> Figure:
    """The figure of a run, 120 dpi, at most 4 x 2 panels. Needs no display."""
    panels = [panel for panel in PANELS if panel(Figure().add_subplot(), summary)]  # drawn once aside: which have anything to show
    columns = min(COLUMNS, max(len(panels), 1))
    rows = max(math.ceil(len(panels) / columns), 1)
    figure = Figure(figsize=(4.7 * columns, 3.9 * rows + 0.9), dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    known = [step for points in summary.series.values() for step, _ in points]
    margin = max(0.6, 0.02 * (max(known) - min(known)))
    for index, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, index)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.set_xlabel("step")
        axes.set_xlim(min(known) - margin, max(known) + margin)  # the same in all panels, so that they can be read together
        panel(axes, summary)
    smoothed = len(summary.steps) > RAW_STEPS
    note = f" · thin: each step, thick: mean of {window(len(summary.steps))}" if smoothed else ""
    figure.suptitle(
        f"{summary.run_dir.resolve().name} · {len(summary.steps)} step{'s' * (len(summary.steps) != 1)}{note}",
        fontsize=13,
        fontweight="bold",
    )
    keys = [Line2D([], [], color=colour, linewidth=2.5, label=kind.value) for kind, colour in colours().items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    return figure


def _held_out(axes: Axes, summary: "Summary") -> bool:
    axes.set_title("Held-out accuracy")
    for kind, colour in colours().items():
        points = summary.series.get(f"eval/{kind.value}", [])
        low, high = (dict(summary.series.get(f"eval/{kind.value}_{side}", [])) for side in ("low", "high"))
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colour, marker="o", markersize=4 if len(points) <= RAW_STEPS else 0)
        bounded = [(step, low[step], high[step]) for step, _ in points if step in low and step in high]
        if bounded:
            steps, lows, highs = zip(*bounded, strict=True)
            if len(bounded) <= RAW_STEPS:
                axes.vlines(steps, lows, highs, color=colour, linewidth=1.2, alpha=0.6)
            else:
                axes.fill_between(steps, lows, highs, color=colour, alpha=0.15, linewidth=0)
    return _share(axes)


def _by_type(title: str, name: str, scale: Callable[[Axes], bool]) -> Panel:
    def panel(axes: Axes, summary: "Summary") -> bool:
        axes.set_title(title)
        for kind, colour in colours().items():
            _curve(axes, summary.series.get(name.format(kind.value), []), colour)
        return scale(axes)

    return panel


def _share(axes: Axes) -> bool:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _from_zero(axes)
    return axes.has_data()


def _lines(axes: Axes) -> bool:
    axes.set_ylabel("lines")
    _from_zero(axes)
    return axes.has_data()


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(0, 1.08 * axes.dataLim.ymax if axes.has_data() and axes.dataLim.ymax > 0 else 1)


def _reward(axes: Axes) -> bool:
    axes.set_ylabel("mean reward")
    has_data = axes.has_data()
    axes.axhline(0, color="#888888", linewidth=0.8)
    return has_data


def _time(axes: Axes, summary: "Summary") -> bool:
    axes.set_title("Time of a step")
    axes.set_ylabel("seconds")
    names = [name for name in PHASES if f"time/{name}_s" in summary.series]
    names += sorted(set(summary.seconds()) - set(names))
    steps = summary.steps
    size = math.ceil(len(steps) / BARS) if steps else 1
    bins = [steps[start : start + size] for start in range(0, len(steps), size)]
    centres = [sum(members) / len(members) for members in bins]
    width = 0.85 * min((later - earlier for earlier, later in pairwise(centres)), default=1.0)
    bottom = [0.0] * len(bins)
    for name in names:
        seconds = dict(summary.series[f"time/{name}_s"])
        heights = [sum(seconds.get(step, 0.0) for step in members) / len(members) for members in bins]
        axes.bar(centres, heights, width, bottom, color=PHASES.get(name), label=name.replace("_", " "))
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    if names:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8, frameon=False, columnspacing=1.2)
    return bool(names)


def _throughput(axes: Axes, summary: "Summary") -> bool:
    axes.set_title("Throughput")
    axes.set_ylabel("tokens per second")
    for label, style in (("generated", "#332288"), ("trained", "#AA4499")):
        points = summary.series.get(f"throughput/{label}_tokens_per_s", [])
        if points:
            _curve(axes, points, style, label)
    _from_zero(axes)
    if axes.has_data():
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)
    return axes.has_data()


def _curve(axes: Axes, points: "Points", colour: str, label: str | None = None) -> None:
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if len(points) <= RAW_STEPS:
        axes.plot(steps, values, color=colour, marker="o", markersize=3.5, label=label)
        return
    axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
    smooth = [value if value is not None else math.nan for value in running_mean(values, window(len(values)))]
    axes.plot(steps, smooth, color=colour, linewidth=2, label=label)


PANELS: tuple[Panel, ...] = (
    _held_out,
    _by_type("Novelty: valid proposals not in the buffer", "propose/{}/new", _share),
    _by_type("Length of a proposed program", "propose/{}/lines", _lines),
    _by_type("Proposer's reward", "propose/{}/reward", _reward),
    _by_type("Valid proposals", "propose/{}/valid", _share),
    _by_type("Solver's reward in training", "solve/{}/reward", _reward),
    _time,
    _throughput,
)


def plot(run_dir: Path, out_png: Path) -> None:
    """Draws the run's curves into a PNG, written aside and renamed. Raises UserError as `summarise` does, or when it cannot be written."""

    summary = summarise(run_dir)
    figure = draw(summary)
    aside = out_png.with_name(out_png.name + ".tmp")
    try:
        figure.savefig(aside, format="png")
        os.replace(aside, out_png)
    except OSError as error:
        raise UserError(f"cannot write {out_png} ({error.strerror}): expected a writable place; give another path") from error
    finally:
        aside.unlink(missing_ok=True)
