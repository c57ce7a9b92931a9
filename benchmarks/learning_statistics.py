"""What learning.py makes of its arms' answers: accuracies, paired differences with intervals clustered by program, and a figure of the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from azr_nemo.evaluation.form_and_substance import split
from azr_nemo.evaluation.form_and_substance import table as split_table
from azr_nemo.evaluation.statistics import quantiles, resampled_means
from azr_nemo.json_lines import objects
from azr_nemo.tasks.task import TaskType

Answers = Mapping[
    str, Mapping[str, NDArray[np.float64]]
]  # greedy | sampled -> task type or "all" -> a score for each program, in one order
WAYS = ("greedy", "sampled")
DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean of one arm's accuracy minus another's over the same tasks, with its 95% interval. Programs are drawn whole, with their task of each type."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def read_answers(path: Path) -> Answers:
    """The scores of learning_arm.py's lines."""
    rows = [row for _, row in objects(path)]
    programs = sorted({row["program"] for row in rows})
    by_task = {(row["program"], row["type"]): row for row in rows}
    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    for way in WAYS:
        scores[way] = {
            kind.value: np.array([by_task[program, kind.value][way] for program in programs], dtype=np.float64) for kind in TaskType
        }
        scores[way]["all"] = np.mean([scores[way][kind.value] for kind in TaskType], axis=0)
    return scores


def difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference:
    """Second minus first, paired by program; the percentile bootstrap over programs."""
    means = resampled_means(second - first, np.random.default_rng(0), DRAWS)
    return Difference(float((second - first).mean()), *quantiles(means))


def average(runs: Sequence[Answers]) -> Answers:
    """The mean score of each program over several seeds' runs."""
    return {way: {kind: np.mean([run[way][kind] for run in runs], axis=0) for kind in runs[0][way]} for way in WAYS}


def table(warm: Answers, arms: Mapping[str, Sequence[Answers]], steps: int, subject: str = "selfplay") -> str:
    """Markdown: each arm's accuracies over all seeds, then what the subject gains on every other, all seeds together and seed by seed."""
    kinds = ["all", *(kind.value for kind in TaskType)]
    lines = [f"| arm | steps | {' | '.join(f'{way} {kind}' for way in WAYS for kind in kinds)} |", "|---" * (2 + 2 * len(kinds)) + "|"]
    means = {"warm start": warm, **{name: average(runs) for name, runs in arms.items()}}
    for name, scores in means.items():
        cells = [f"{scores[way][kind].mean():.3f}" for way in WAYS for kind in kinds]
        lines.append(f"| {name} | {0 if name == 'warm start' else steps} | {' | '.join(cells)} |")
    ours = arms[subject]
    lines += ["", f"| {subject} minus | greedy, all seeds | sampled, all seeds | greedy, seed by seed |", "|---|---|---|---|"]
    for name, scores in means.items():
        if name != subject:
            others = [warm] * len(ours) if name == "warm start" else arms[name]
            both = [str(difference(scores[way]["all"], means[subject][way]["all"])) for way in WAYS]
            each = "; ".join(str(difference(a["greedy"]["all"], b["greedy"]["all"])) for a, b in zip(others, ours, strict=True))
            lines.append(f"| {name} | {both[0]} | {both[1]} | {each} |")
    return "\n".join(lines)


def splits(warm: Path, arms: Mapping[str, Sequence[Path]]) -> str:
    """Markdown: what each arm's greedy gain on the warm start is made of, all seeds together; empty where answers were kept without their reasons."""
    before = _graded(warm)
    found = {}
    for name, paths in arms.items():
        runs = [_graded(path) for path in paths]
        if not before or not all(runs):
            return ""
        sides = [before] * len(runs), runs
        first, second = ([{**row, "sample": f"{row['sample']}/{seed}"} for seed, run in enumerate(side) for row in run] for side in sides)
        found[name] = split(first, second)
    return split_table(found)


def echoes(warm: Path, arms: Mapping[str, Sequence[Path]]) -> str:
    """Markdown: of the greedy answers to abduction tasks, shares that repeat the output, that are right, and that are right without repeating it, over
    all seeds; then the accuracy over all task types that counts only such, and its difference to the warm start. Empty where answers were kept
    without that."""
    lines = [
        "| greedy | inputs that repeat the output | inputs right | right without that | all types, without that | minus warm start |",
        "|---|---|---|---|---|---|",
    ]
    before: NDArray[np.float64] | None = None
    for name, paths in {"warm start": [warm], **arms}.items():
        runs = [[row for _, row in objects(path)] for path in paths]
        rows = [row for run in runs for row in run if row["type"] == TaskType.ABDUCTION]
        if not all("echo" in row for row in rows):
            return ""
        honest = np.mean([_without_echo(run) for run in runs], axis=0)
        before = honest if before is None else before
        inputs = [
            float(np.mean(values))
            for values in zip(*((row["echo"], row["greedy"], row["greedy"] and not row["echo"]) for row in rows), strict=True)
        ]
        cells = [f"{value:.3f}" for value in (*inputs, honest.mean())]
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if name == 'warm start' else difference(before, honest)} |")
    return "\n".join(lines) + "\n"


def _without_echo(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Of each program, in one order, the share of its tasks that are answered rightly and not by repeating the output."""
    right: dict[str, list[bool]] = {}
    for row in rows:
        right.setdefault(row["program"], []).append(row["greedy"] == 1 and not row["echo"])
    return np.array([np.mean(right[program]) for program in sorted(right)], dtype=np.float64)


def narrowing(curves: Mapping[str, Sequence[list[dict[str, float]]]]) -> str:
    """Markdown: what became of entropy and proposals, in the first and in the last tenth of the steps, means over seeds and task types."""
    lines = [
        "\n| | entropy | valid proposals | new, of the valid | lines of a program | right on its own tasks | echoes among inputs |",
        "|---|---|---|---|---|---|---|",
    ]
    names = ["train/entropy", "propose/{}/valid", "propose/{}/novel", "propose/{}/lines", "solve/{}/accuracy", "solve/{}/echo"]
    for arm, runs in curves.items():
        steps = [[row for row in run if row["step"]] for run in runs]
        ends = [[row for run in steps for row in run[place(len(run))]] for place in (_first, _last)]
        lines.append(f"| {arm} | " + " | ".join(" → ".join(filter(None, (_mean(rows, name) for rows in ends))) for name in names) + " |")
    return "\n".join(lines) + "\n"


def _first(steps: int) -> slice:
    return slice(0, max(1, steps // 10))


def _last(steps: int) -> slice:
    return slice(steps - max(1, steps // 10), steps)


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> str:
    """Of a metric over runs and the task types that have it; empty where none has."""
    keys = dict.fromkeys(name.format(kind) for kind in TaskType)
    found = [row[key] for row in rows for key in keys if row.get(key) is not None]
    return f"{np.mean(found):.2f}" if found else ""


def _graded(path: Path) -> list[dict[str, Any]]:
    """Greedy answers as rows of an evaluation: a program is an item, its tasks are drawn with it."""
    rows = [row for _, row in objects(path)]
    return [
        {
            "id": row["program"],
            "sample": row["type"],
            "right": row["greedy"] == 1,
            "reason": row["reason"],
            "finished": row["reason"] != "truncated",
        }
        for row in rows
        if "reason" in row
    ]


def figure(curves: Mapping[str, Sequence[list[dict[str, float]]]], out: Path) -> None:
    """Held-out accuracy (entropy, where runs did not measure it), its training counterpart, and the proposer's side of it, over the steps: a thin
    line a seed, a thick one their mean. curves: for each arm the metrics of each seed's run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "held-out accuracy (greedy)": "eval/{}", "accuracy on its own tasks": "solve/{}/accuracy", "valid proposals": "propose/{}/valid",
        "new programs, share of valid": "propose/{}/novel", "lines of a program": "propose/{}/lines", "proposer's reward": "propose/{}/reward",
    }  # fmt: skip
    if not any(_points(run, "eval/{}")[0] for runs in curves.values() for run in runs):  # held-out programs were asked apart from the runs
        panels = {"entropy": "train/entropy", **dict(list(panels.items())[1:])}
    colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"]
    drawn, axes = pyplot.subplots(2, 3, figsize=(11, 5.6), layout="constrained")
    for axis, (title, name) in zip(axes.flat, panels.items(), strict=True):
        for colour, (arm, runs) in zip(colours, curves.items(), strict=False):
            lines = [_points(run, name) for run in runs]
            for steps, values in lines:
                axis.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
            common = sorted(set.intersection(*(set(steps) for steps, _ in lines)))
            mean = [float(np.mean([values[steps.index(step)] for steps, values in lines])) for step in common]
            axis.plot(common, mean, color=colour, linewidth=2, label=arm)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
    axes[1, 1].set_xlabel("step", fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    drawn.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
    pyplot.close(drawn)


def _points(run: list[dict[str, float]], name: str, window: int = 10) -> tuple[list[int], list[float]]:
    """Mean over the task types at each step that has them; what is measured at every step is averaged over the last `window` steps."""
    steps, values = [], []
    for row in run:
        found = [row[key] for kind in TaskType if (key := name.format(kind)) in row and row[key] is not None]
        if found:
            steps.append(int(row["step"]))
            values.append(float(np.mean(found)))
    if not name.startswith("eval/"):
        values = [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]
    return steps, values
