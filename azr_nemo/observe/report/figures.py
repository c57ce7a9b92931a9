"""The parts that the report's charts are made of: traces and layouts as plotly's JSON, without colours of the page, which knows light and dark."""

import html
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from azr_nemo.observe.pictures import RAW_STEPS, RUNS, colours, running_mean, window
from azr_nemo.observe.report.read import Run, Series, Value, thinned
from azr_nemo.tasks.task import TaskType

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")  # a task type each, where colours are runs
SYMBOLS = ("circle", "square", "diamond", "cross", "x")
SHARE = {"tickformat": ".0%", "rangemode": "tozero"}
FROM_ZERO = {"rangemode": "tozero"}

Json = dict[str, Any]
Step = TypeVar("Step", int, float)  # a float where it stands for several


@dataclass(frozen=True)
class Chart:
    """One picture. data, layout: plotly's. about: what it shows, for whoever cannot see it and below its title. A trace's `meta` says which run
    and task type it belongs to, so that the page can hide it."""

    id: str
    title: str
    about: str
    data: list[Json]
    layout: Json = field(default_factory=dict)

    def json(self) -> Json:
        return asdict(self)


def axis(title: str, **more: Any) -> Json:
    return {"title": {"text": title}, **more}


def by_type(
    id: str, title: str, about: str, runs: Sequence[Run], pattern: str, y: Json, interval: bool = False, smooth: bool = True
) -> Chart:
    """A line for each run and task type of a metric whose name has the type in it. interval: with the ends in NAME_low and NAME_high. smooth:
    of a long run, add a running mean."""
    data = [
        trace
        for place, run in enumerate(runs)
        for kind in TaskType
        for trace in curve(run, place, pattern.format(kind.value), kind.value, len(runs), kind, interval, smooth=smooth)
    ]
    return Chart(id, title, about, data, {"xaxis": axis("step"), "yaxis": y})


def by_run(id: str, title: str, about: str, runs: Sequence[Run], metrics: dict[str, str], y: Json, interval: bool = False) -> Chart:
    """A line for each run and metric. metrics: their names, with a label each."""
    data = [
        trace
        for place, run in enumerate(runs)
        for line, (name, label) in enumerate(metrics.items())
        for trace in curve(run, place, name, label, len(runs), None, interval, DASHES[line % 3], line)
    ]
    return Chart(id, title, about, data, {"xaxis": axis("step"), "yaxis": y, "showlegend": len(metrics) > 1})


def curve(
    run: Run,
    place: int,
    name: str,
    label: str,
    runs: int,
    kind: TaskType | None = None,
    interval: bool = False,
    dash: str | None = None,
    line: int = 0,
    smooth: bool = True,
) -> list[Json]:
    """The traces of one metric of one run, none when it has no value. A long run gets its single steps thin and a running mean thick."""
    if name not in run.series:
        return []
    series = thinned(run.series[name])
    if runs > 1:
        colour = RUNS[place % len(RUNS)]
    else:
        colour = colours()[kind] if kind else RUNS[line % len(RUNS)]
    label = f"{run.name} · {label}" if runs > 1 else label
    number = list(TaskType).index(kind) if kind else 0
    style = dash if kind is None else DASHES[number % len(DASHES)] if runs > 1 else "solid"
    trace: Json = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(label),
        "x": series.steps,
        "y": _brief(series.values),
        "connectgaps": False,
        "line": {"color": colour, "dash": style, "width": 2},
        "marker": {"color": colour, "size": 6, "symbol": SYMBOLS[number % len(SYMBOLS)]},
        "meta": {"run": place, "type": kind.value if kind else None},
    }
    if interval:
        return [trace | _interval(run, name, series, colour)]
    if len(series.steps) <= RAW_STEPS:
        return [trace]
    if not smooth:
        return [trace | {"mode": "lines"}]
    size = window(len(series.steps))
    thin = trace | {"opacity": 0.3, "line": trace["line"] | {"width": 1}, "marker": trace["marker"] | {"size": 2}, "showlegend": False}
    thick = trace | {"y": _brief(running_mean(series.values, size)), "mode": "lines", "name": plain(f"{label}, mean of {size} steps")}
    return [thin | {"hoverinfo": "skip"}, thick]


def _brief(values: Sequence[Value]) -> list[Value]:
    """Six digits: more cannot be seen, and the rounding errors of a line that is level would be drawn as its shape."""
    return [None if value is None else float(f"{value:.6g}") for value in values]


def _interval(run: Run, name: str, series: Series, colour: str) -> Json:
    low, high = (run.series.get(f"{name}_{side}", Series([], [])).at() for side in ("low", "high"))

    def reach(ends: dict[float, float], way: int) -> list[Value]:
        pairs = zip(series.steps, series.values, strict=True)
        return [way * (ends[step] - value) if value is not None and step in ends else None for step, value in pairs]

    return {
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": reach(high, 1),
            "arrayminus": reach(low, -1),
            "color": colour,
            "thickness": 1.2,
            "width": 3,
        }
    }


def bins(steps: Sequence[Step], most: int) -> list[list[Step]]:
    """The steps in at most so many groups of neighbours."""
    size = max(1, -(-len(steps) // most))
    return [list(steps[start : start + size]) for start in range(0, len(steps), size)]


def plain(text: str) -> str:
    """A text that plotly shows as it is: its labels know some HTML."""
    return html.escape(text, quote=False)


def present(runs: Sequence[Run], test: Callable[[str], bool]) -> list[str]:
    """The names of metrics that any of the runs has, in the order of their first appearance."""
    return [name for name in dict.fromkeys(name for run in runs for name in run.series) if test(name)]


BESIDE = {"solved": "solve/{}/accuracy", "new": "propose/{}/new", "lines": "propose/{}/lines"}
NOTHING = Series([], [])


def verdicts(run: Run) -> list[Json]:
    """A row for each task type that the run has and each benchmark: held-out accuracy at the first and the last measurement, what may be said of
    the change, and beside it what the model made of its own tasks, as means of the first and the last steps."""
    types = [kind.value for kind in TaskType]
    suites = [
        name for name in (n.removeprefix("eval/") for n in run.series if n.startswith("eval/")) if not name.endswith(("_low", "_high"))
    ]
    rows = []
    for name in [*types, *(suite for suite in suites if suite not in types)]:
        beside = {key: _ends(run.series.get(pattern.format(name), NOTHING)) for key, pattern in BESIDE.items()}
        measured = _measured(run, name)
        if measured or any(beside.values()):
            rows.append({"of": name, "held_out": measured[:1] + measured[1:][-1:], "change": change(measured), **beside})
    return rows


def change(measured: list[Json]) -> str:
    """rose or fell only where neither's interval reaches the other's accuracy, as for `eval.stop_if_worse`: noise on few items says nothing."""
    if not measured:
        return "not measured"
    first, last = measured[0], measured[-1]
    if len(measured) == 1:
        return "measured once"
    if None in (first["low"], first["high"], last["low"], last["high"]):
        return "without an interval"
    if first["high"] < last["value"] and last["low"] > first["value"]:
        return "rose"
    if first["low"] > last["value"] and last["high"] < first["value"]:
        return "fell"
    return "no clear change"


def _measured(run: Run, name: str) -> list[Json]:
    low, high = (run.series.get(f"eval/{name}_{side}", NOTHING).at() for side in ("low", "high"))
    found = run.series.get(f"eval/{name}", NOTHING).at()
    return [{"step": step, "value": value, "low": low.get(step), "high": high.get(step)} for step, value in found.items()]


def _ends(series: Series) -> list[float]:
    """The means of the first and of the last steps, at most ten each and never the same ones; one value where there is only one step."""
    values = list(series.at().values())
    size = min(10, max(1, len(values) // 4))
    ends = [values[:size], values[size:][-size:]]
    return [sum(end) / len(end) for end in ends if end]
