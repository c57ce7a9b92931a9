"""The answer to the first question: did it learn? First against last, with the words that the numbers allow."""

from azr_nemo.observe.report.figures import Json
from azr_nemo.observe.report.read import Run, Series
from azr_nemo.tasks.task import TaskType

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
