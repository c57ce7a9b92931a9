"""What a run came to: a table of its first and last steps, and a picture of its curves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from azr_nemo.errors import UserError
from azr_nemo.observe.metrics import read_metrics
from azr_nemo.observe.text import printable
from azr_nemo.observe.timing import clock_text
from azr_nemo.tasks.task import TaskType

Points = list[tuple[int, float]]  # (step, value), by step; values that were not finite are left out

BY_TYPE = (
    ("held-out accuracy", "eval/{}"),
    ("  without an echo", "held_out/{}/without_echo"),
    ("proposer: valid", "propose/{}/valid"),
    ("  not in the buffer", "propose/{}/new"),
    ("  new program", "propose/{}/novel"),
    ("  learnable", "propose/{}/learnable"),
    ("  lines", "propose/{}/lines"),
    ("  reward", "propose/{}/reward"),
    ("solver: right", "solve/{}/accuracy"),
    ("  echoes", "solve/{}/echo"),
    ("  reward", "solve/{}/reward"),
    ("buffer, tasks", "buffer/{}/size"),
)
OVERALL = (
    ("generated tokens/s", "throughput/generated_tokens_per_s"),
    ("trained tokens/s", "throughput/trained_tokens_per_s"),
    ("programs/s", "throughput/programs_per_s"),
    ("tokens of a proposal", "response/propose_tokens"),
    ("tokens of a solution", "response/solve_tokens"),
    ("entropy, nats", "train/entropy"),
    ("gradient norm", "train/grad_norm"),
    ("clipped share", "train/clip_fraction"),
    ("KL of rollout and trainer", "train/rollout_kl"),
    ("peak memory, GiB", "memory/peak_rss_gib"),
)
SINGLE = ("eval/{}", "held_out/{}/without_echo", "buffer/{}/size")  # at their ends one value says more than a mean does
REASONS = 6  # most frequent refusals shown


@dataclass(frozen=True)
class Summary:
    """series: every metric of the run by name. window: how many steps the table averages at each end of a series."""

    run_dir: Path
    series: dict[str, Points]
    window: int

    @property
    def steps(self) -> list[int]:
        """The finished steps."""
        return [step for step, _ in self.series.get("step/seconds", [])]

    def table(self) -> RenderableType:
        """For rich: per task type, overall, the time per phase, why proposals were refused. Metrics that the run lacks are left out."""
        return Group(*self._parts())

    def seconds(self) -> dict[str, float]:
        """Seconds spent in each phase over all steps, most first."""
        totals = {name[len("time/") : -len("_s")]: sum(v for _, v in points) for name, points in self.series.items() if _is_phase(name)}
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def refusals(self) -> dict[str, int]:
        """How many proposals were refused for each reason over all steps, most first."""
        prefix = "refused/"
        totals = {n.removeprefix(prefix): round(sum(v for _, v in p)) for n, p in self.series.items() if n.startswith(prefix)}
        return dict(sorted(((reason, count) for reason, count in totals.items() if count), key=lambda item: -item[1]))

    def _parts(self) -> Iterator[RenderableType]:
        spent = sum(value for _, value in self.series.get("step/seconds", []))
        yield Text(f"{_counted(len(self.steps), 'step')} in {clock_text(spent)}: {self.run_dir}", style="bold")
        by_type = Table(
            Column(no_wrap=True), *(Column(kind.value, no_wrap=True) for kind in TaskType), box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for label, pattern in BY_TYPE:
            cells = [self._change(pattern.format(kind.value), pattern) for kind in TaskType]
            if any(cells):
                by_type.add_row(label, *cells)
        if by_type.row_count:
            yield by_type
        overall = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
        for label, name in OVERALL:
            if cell := self._change(name, name):
                overall.add_row(label, cell)
        if overall.row_count:
            yield overall
        if seconds := self.seconds():
            whole = sum(seconds.values()) or 1.0
            yield Text("Time: " + ", ".join(f"{_spaced(name)} {value / whole:.0%}" for name, value in seconds.items()))
        if refusals := self.refusals():
            shown = [f"{printable(_spaced(reason))} {count}" for reason, count in list(refusals.items())[:REASONS]]
            rest = sum(list(refusals.values())[REASONS:])
            yield Text("Refused proposals: " + ", ".join(shown + [f"other {rest}"] * bool(rest)))
        if self.window > 1:
            yield Text(f"First → last {self.window} steps, means; held-out accuracy and the buffer: first → last value.", style="dim")
        yield Text("Solving more of its own tasks can mean easier tasks: judge by held-out accuracy, novelty and length.", style="dim")

    def _change(self, name: str, pattern: str) -> str:
        points = self.series.get(name, [])
        if not points:
            return ""
        window = 1 if pattern in SINGLE else self.window
        ends = [points[:window]] if len(points) == 1 else [points[:window], points[-window:]]
        cells = [_number(sum(v for _, v in end) / len(end)) + self._interval(name, end[0][0]) for end in ends]
        return "\n→ ".join(cells) if "[" in cells[0] else " → ".join(cells)

    def _interval(self, name: str, step: int) -> str:
        low, high = (dict(self.series.get(f"{name}_{side}", [])).get(step) for side in ("low", "high"))
        return "" if low is None or high is None else f" [{_number(low).removeprefix('0')}, {_number(high).removeprefix('0')}]"


def summarise(run_dir: Path) -> Summary:
    """Reads the metrics of a run, finished or still going. Raises UserError when there is no run or it has not finished a step yet."""
    rows = rows_by_step(run_dir)
    series: dict[str, Points] = {}
    for step, row in rows.items():
        for name, value in row.items():
            if isinstance(value, int | float):
                series.setdefault(name, []).append((step, float(value)))
    return Summary(run_dir, series, window=min(10, max(1, len(series["step/seconds"]) // 4)))


def rows_by_step(run_dir: Path) -> dict[int, dict[str, Any]]:
    """The metrics of each step, ascending; None for values that were not finite. Raises UserError when there is no run or it has not finished
    a step yet."""
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        raise UserError(
            f"{run_dir} holds no metrics.jsonl: expected the directory of a run; check the path, or start one with azr-nemo train"
        )
    rows: dict[int, dict[str, Any]] = {}
    for row in read_metrics(path):  # a step may have several lines, a later one completes an earlier one
        rows.setdefault(row["step"], {}).update({name: value for name, value in row.items() if name not in ("step", "time")})
    if not any(isinstance(row.get("step/seconds"), int | float) for row in rows.values()):
        raise UserError(f"the run in {run_dir} has not finished a step yet: expected at least one; wait for its first step line")
    return dict(sorted(rows.items()))


def _is_phase(name: str) -> bool:
    return name.startswith("time/") and name.endswith("_s")


def _number(value: float) -> str:
    if abs(value) >= 100 or (value.is_integer() and abs(value) > 1):
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _spaced(name: str) -> str:
    return name.replace("_", " ")
