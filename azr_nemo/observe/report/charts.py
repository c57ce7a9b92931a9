"""Which charts a report has: held-out accuracy, which stays in sight beside every section of curves, and the sections."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from azr_nemo.observe.lanes import ordered
from azr_nemo.observe.pictures import PHASES, RUNS, mean
from azr_nemo.observe.report.figures import FROM_ZERO, SHARE, Chart, Json, axis, bins, by_run, by_type, plain, present
from azr_nemo.observe.report.read import Run, Series, TaskRow
from azr_nemo.tasks.task import TaskType

BARS = 60
LANES = 3  # steps whose lanes are drawn
RATES = ("0 %", "1–20 %", "21–40 %", "41–60 %", "61–80 %", "81–99 %", "100 %")
REASONS = 8  # most frequent refusals, each with a colour of its own
REFUSALS = (*RUNS, "#882255")


def held_out(runs: Sequence[Run]) -> Json | None:
    """The chart of held-out accuracy, drawn once and pinned beside whatever section one reads: no training curve is seen without it. None
    where it was not measured."""
    about = "share of held-out tasks solved, greedy, with 95% intervals"
    chart = by_type("held-out", "Held-out accuracy", about, runs, "eval/{}", axis("accuracy", **SHARE), interval=True)
    return chart.json() if chart.data else None


def sections(runs: Sequence[Run]) -> list[Json]:
    """For the page: {id, title, about, charts}. Charts without data are left out, and so are sections without charts."""
    made: list[Json] = []
    for id, title, about, charts in (
        ("learned", "Did it learn?", LEARNED, _learned(runs)),
        ("benchmarks", "Benchmarks", "Accuracy on a fixed part of each benchmark, with 95% intervals.", _benchmarks(runs)),
        ("rewards", "Rewards", "Mean reward of a step's rows, by role and task type.", _rewards(runs)),
        ("proposals", "Proposals", "What became of the proposed tasks, before any of them is learned from.", _proposals(runs)),
        ("rates", "Solve rates over time", RATES_ABOUT, _solve_rates(runs)),
        ("buffer", "Task buffer", "How it grows, and how many of its programs differ (up to names and layout).", _buffer(runs)),
        ("update", "Optimizer steps", "Means over the response tokens of a step.", _update(runs)),
        ("cost", "Time and memory", "The phases of a step add up to its length.", _cost(runs)),
    ):
        drawn = [_numbered(id, chart).json() for chart in charts if chart.data]
        if drawn:
            made.append({"id": id, "title": title, "about": about, "charts": drawn})
    return made


LEARNED = (
    "Held-out accuracy is measured on programs that are never trained on; the bars are 95% intervals. Solving more of its own tasks can mean easier "
    "tasks, so read it beside the novelty and the length of what is proposed."
)
RATES_ABOUT = (
    "The tasks in the buffer by the step that made them and the share of their answers so far that were right. "
    "Each column adds up to 100 %. Tasks that were evicted are not counted."
)


def _numbered(section: str, chart: Chart) -> Chart:
    return Chart(f"{section}-{chart.id}", chart.title, chart.about, chart.data, chart.layout)


def _learned(runs: Sequence[Run]) -> list[Chart]:
    return [
        by_type("solved", "Accuracy on its own tasks", "share of right answers, in training", runs, "solve/{}/accuracy", axis("", **SHARE)),
        by_type("new", "Novelty", "valid proposals that were not in the buffer", runs, "propose/{}/new", axis("", **SHARE)),
        by_type("lines", "Program length", "lines of the body of a valid program", runs, "propose/{}/lines", axis("lines", **FROM_ZERO)),
    ]


def _benchmarks(runs: Sequence[Run]) -> list[Chart]:
    types = {f"eval/{kind.value}" for kind in TaskType}
    suites = present(runs, lambda name: name.startswith("eval/") and name not in types and not name.endswith(("_low", "_high")))
    y = axis("accuracy", **SHARE)
    return [
        by_run(f"suite{n}", suite.removeprefix("eval/"), "", runs, {suite: "accuracy"}, y, interval=True) for n, suite in enumerate(suites)
    ]


def _rewards(runs: Sequence[Run]) -> list[Chart]:
    y = axis("mean reward")
    parts = dict.fromkeys(name.split("/", 2)[2] for name in present(runs, lambda name: name.startswith("intrinsic/")))
    return [
        by_type("solve", "Solver's reward", "in training", runs, "solve/{}/reward", y),
        by_type("propose", "Proposer's reward", "learnability, intrinsic rewards and penalties", runs, "propose/{}/reward", y),
        *(
            by_type(f"intrinsic{n}", f"Intrinsic reward {part}", "mean over learnable tasks", runs, f"intrinsic/{{}}/{part}", y)
            for n, part in enumerate(parts)
        ),
    ]


def _proposals(runs: Sequence[Run]) -> list[Chart]:
    y = axis("", **SHARE)
    return [
        by_type("valid", "Valid proposals", "readable, allowed and proved by the executor", runs, "propose/{}/valid", y),
        by_type("learnable", "Learnable tasks", "new tasks solved sometimes, neither never nor always", runs, "propose/{}/learnable", y),
        by_type("rate", "Solve rate of new tasks", "share of right estimates", runs, "propose/{}/solve_rate", y),
        by_type("novel", "New programs", "valid proposals whose program was not in the buffer", runs, "propose/{}/novel", y),
        *(_refused(run, place, len(runs)) for place, run in enumerate(runs)),
    ]


def _refused(run: Run, place: int, runs: int) -> Chart:
    totals = {name: sum(series.at().values()) for name, series in run.series.items() if name.startswith("refused/")}
    most = sorted(totals, key=lambda name: -totals[name])[:REASONS]
    labels = {name: name.removeprefix("refused/").replace("_", " ") for name in most}
    colours = dict(zip(most, REFUSALS, strict=False))
    chart = _stacked(f"refused{place}", _titled("Refused proposals", run, runs), "by reason, a step", run, place, labels, colours)
    chart.layout["yaxis"] = axis("proposals a step", **FROM_ZERO)
    return chart


def _solve_rates(runs: Sequence[Run]) -> list[Chart]:
    return [_solve_rate(run, place, kind, len(runs)) for place, run in enumerate(runs) for kind in TaskType]


def _solve_rate(run: Run, place: int, kind: TaskType, runs: int) -> Chart:
    title = _titled(f"Solve rates, {kind.value}", run, runs)
    tasks = [task for task in run.tasks if task.type is kind and task.attempts]
    groups = bins(sorted({task.step for task in tasks}), BARS)
    by_step: dict[int, list[int]] = {}
    for task in tasks:
        by_step.setdefault(task.step, [0] * len(RATES))[_rate_bin(task)] += 1
    counts = [[sum(by_step[step][rate] for step in group) for group in groups] for rate in range(len(RATES))]
    totals = [sum(column) or 1 for column in zip(*counts, strict=True)]
    data: list[Json] = [
        {
            "type": "heatmap",
            "x": [_span(group) for group in groups],
            "y": list(RATES),
            "z": [[count / total for count, total in zip(row, totals, strict=True)] for row in counts],
            "text": [[f"{count} tasks" for count in row] for row in counts],
            "hovertemplate": "step %{x}<br>%{y} right: %{text}<extra></extra>",
            "zmin": 0,
            "zmax": 1,
            "colorscale": "Cividis",
            "colorbar": {"tickformat": ".0%", "thickness": 10, "title": {"text": "of tasks", "side": "right"}},
            "meta": {"run": place, "type": kind.value},
        }
    ]
    layout = {"xaxis": axis("made at step", type="category"), "yaxis": axis("right answers", type="category", ticksuffix=" ")}
    return Chart(f"{place}-{kind.value}", title, f"{len(tasks):,} tasks with answers", data if tasks else [], layout)


def _rate_bin(task: TaskRow) -> int:
    if task.solved in (0, task.attempts):
        return 0 if task.solved == 0 else len(RATES) - 1
    return 1 + min(4, int(5 * task.solved / task.attempts - 1e-9))


def _span(steps: Sequence[float]) -> str:
    return f"{steps[0]:g}" if len(steps) == 1 else f"{steps[0]:g}–{steps[-1]:g}"


def _buffer(runs: Sequence[Run]) -> list[Chart]:
    seen = [replace(run, series=_diversity(run.tasks)) for run in runs]
    size, kept, differ = (
        "after each step",
        "made up to a step and still there, seeds included",
        "share of the tasks kept whose program differs",
    )
    return [
        by_type("size", "Tasks in the buffer", size, runs, "buffer/{}/size", axis("tasks", **FROM_ZERO), smooth=False),
        by_type("made", "Tasks kept", kept, seen, "made/{}", axis("tasks", **FROM_ZERO), smooth=False),
        by_type("programs", "Different programs", differ, seen, "programs/{}", axis("", **SHARE), smooth=False),
    ]


def _diversity(tasks: Sequence[TaskRow]) -> dict[str, Series]:
    """By step: how many of the tasks that are in the buffer now were there by then, and what share of their programs differed."""
    series: dict[str, Series] = {}
    for kind in TaskType:
        own = [task for task in tasks if task.type is kind]
        if not own:
            continue
        steps = sorted({task.step for task in own})
        added: dict[int, int] = dict.fromkeys(steps, 0)
        first: dict[str, int] = {}
        for task in own:
            added[task.step] += 1
            first[task.program_hash] = min(task.step, first.get(task.program_hash, task.step))
        new = dict.fromkeys(steps, 0)
        for step in first.values():
            new[step] += 1
        sizes, programs = list(accumulate(added.values())), list(accumulate(new.values()))
        series[f"made/{kind.value}"] = Series(list(steps), [float(size) for size in sizes])
        series[f"programs/{kind.value}"] = Series(list(steps), [count / size for count, size in zip(programs, sizes, strict=True)])
    return series


def _update(runs: Sequence[Run]) -> list[Chart]:
    return [
        by_run("loss", "Loss", "as minimised", runs, {"train/loss": "loss"}, axis("")),
        by_run("entropy", "Entropy", "of the next token", runs, {"train/entropy": "entropy"}, axis("nats", **FROM_ZERO)),
        by_run("grad", "Gradient norm", "before clipping", runs, {"train/grad_norm": "norm"}, axis("", **FROM_ZERO)),
        by_run("clip", "Clipped tokens", "share of tokens", runs, {"train/clip_fraction": "clipped"}, axis("", **SHARE)),
        by_run(
            "kl", "Rollout engine against trainer", "KL of the same weights, close to 0", runs, {"train/rollout_kl": "KL"}, axis("nats")
        ),
    ]


def _cost(runs: Sequence[Run]) -> list[Chart]:
    speed = {"throughput/generated_tokens_per_s": "generated", "throughput/trained_tokens_per_s": "trained"}
    return [
        *(_time(run, place, len(runs)) for place, run in enumerate(runs)),
        *(_lanes(run, place, len(runs)) for place, run in enumerate(runs)),
        _memory(runs, "rss", "Memory of the process"),
        _memory(runs, "gpu", "Memory of the GPU"),
        by_run(
            "speed", "Throughput", "response tokens a second of generating and of the update", runs, speed, axis("tokens/s", **FROM_ZERO)
        ),
    ]


def _time(run: Run, place: int, runs: int) -> Chart:
    names = [f"time/{phase}_s" for phase in PHASES] + sorted(name for name in run.series if name.startswith("time/"))
    labels = {name: _phase(name) for name in names if name in run.series}
    colours = {f"time/{phase}_s": colour for phase, colour in PHASES.items()}
    title = _titled("Time of a step", run, runs)
    chart = _stacked(f"time{place}", title, "seconds of each phase", run, place, labels, colours)
    chart.layout["yaxis"] = axis("seconds", **FROM_ZERO)
    return chart


def _lanes(run: Run, place: int, runs: int) -> Chart:
    """The last steps end to end: a bar where a lane was at work, so that gaps are waiting."""
    data: list[Json] = []
    start, last = 0.0, sorted(run.lanes)[-LANES:]
    for step in last:
        for span in run.lanes[step]:
            bar = {"type": "bar", "orientation": "h", "name": f"step {step}", "y": [span.lane], "x": [span.ended - span.began]}
            data.append({**bar, "base": [start + span.began], "marker": {"color": PHASES.get(span.lane)}, "meta": {"run": place}})
        start += max((span.ended for span in run.lanes[step]), default=0.0)
    lanes = ordered(span for step in last for span in run.lanes[step])
    layout = {
        "xaxis": axis("seconds"),
        "yaxis": axis("", categoryorder="array", categoryarray=lanes[::-1]),
        "barmode": "overlay",
        "showlegend": False,
    }
    return Chart(f"lanes{place}", _titled("Lanes of the last steps", run, runs), "who was at work when; a gap is waiting", data, layout)


def _memory(runs: Sequence[Run], kind: str, title: str) -> Chart:
    end = f"_{kind}_gib"
    order = [f"memory/{phase}{end}" for phase in PHASES]
    found = present(runs, lambda name: name.startswith("memory/") and name.endswith(end) and name != f"memory/peak{end}")
    found.sort(key=lambda name: order.index(name) if name in order else len(order))
    peaks = [[max(run.series[name].at().values()) if name in run.series else None for name in found] for run in runs]
    labels = [name.removeprefix("memory/").removesuffix(end).replace("_", " ") for name in found]
    data: list[Json] = [
        {
            "type": "bar",
            "name": plain(run.name),
            "x": labels,
            "y": peaks[place],
            "marker": {"color": RUNS[place % len(RUNS)]},
            "meta": {"run": place},
        }
        for place, run in enumerate(runs)
    ]
    layout = {"xaxis": axis("", type="category"), "yaxis": axis("GiB", **FROM_ZERO), "barmode": "group", "showlegend": len(runs) > 1}
    return Chart(f"memory-{kind}", title, "the most that was held in each phase", data if found else [], layout)


def _stacked(id: str, title: str, about: str, run: Run, place: int, labels: dict[str, str], colours: dict[str, str]) -> Chart:
    """Bars of means over neighbouring steps. A metric that a step lacks counts as 0 there: nothing happened."""
    groups = bins(run.series["step/seconds"].steps, BARS)
    centres = [sum(group) / len(group) for group in groups]
    width = 0.85 * min((later - earlier for earlier, later in pairwise(centres)), default=1.0)
    data: list[Json] = []
    for name, label in labels.items():
        values = run.series[name].at()
        heights = [mean([values.get(step, 0.0) for step in group]) for group in groups]
        bar: dict[str, Any] = {"type": "bar", "name": plain(label), "x": centres, "y": heights, "width": width, "meta": {"run": place}}
        data.append(bar | ({"marker": {"color": colours[name]}} if name in colours else {}))
    return Chart(id, title, about, data, {"xaxis": axis("step"), "barmode": "stack", "showlegend": True})


def _titled(title: str, run: Run, runs: int) -> str:
    return f"{title}: {run.name}" if runs > 1 else title


def _phase(name: str) -> str:
    return name.removeprefix("time/").removesuffix("_s").replace("_", " ")
