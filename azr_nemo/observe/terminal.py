"""A run on a terminal: its latest numbers and bars that move, with the step lines, notes and samples scrolling above them."""

import io
from collections.abc import Callable, Mapping
from typing import TextIO

import rich.console
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from azr_nemo.observe.text import clip
from azr_nemo.observe.timing import clock_text
from azr_nemo.observe.view import Phase
from azr_nemo.tasks.task import TaskType

BY_TYPE = (
    ("valid proposals", "propose/{}/valid", "{:.0%}"),
    ("learnable", "propose/{}/learnable", "{:.0%}"),
    ("answers right", "solve/{}/accuracy", "{:.0%}"),
    ("held out", "eval/{}", "{:.0%}"),
    ("tasks in the buffer", "buffer/{}/size", "{:,.0f}"),
)
OVERALL = (
    ("generated", "throughput/generated_tokens_per_s", "{:,.0f} tokens/s"),
    ("trained", "throughput/trained_tokens_per_s", "{:,.0f} tokens/s"),
    ("executed", "throughput/programs_per_s", "{:,.0f} programs/s"),
    ("memory", "memory/peak_rss_gib", "{:.1f} GiB"),
    ("memory, GPU", "memory/peak_gpu_gib", "{:.1f} GiB"),
    ("entropy", "train/entropy", "{:.3f} nats"),
)
ALARM = "alarm/"


def run_panel(metrics: Mapping[str, float]) -> Panel:
    """metrics: the latest known value of each name of docs/metrics.md. – stands for a missing one; alarms that are up are named below."""
    types = Table.grid(Column(style="dim"), *(Column(justify="right") for _ in TaskType), padding=(0, 2, 0, 0))
    types.add_row("", *(Text(kind.value, style="bold") for kind in TaskType))
    for label, pattern, number in BY_TYPE:
        types.add_row(label, *(_number(metrics, pattern.format(kind.value), number) for kind in TaskType))
    overall = Table.grid(Column(style="dim"), Column(), padding=(0, 2, 0, 0))
    for label, name, number in OVERALL:
        if name in metrics or "gpu" not in name:
            overall.add_row(label, _number(metrics, name, number))
    both = Table.grid(padding=(0, 3, 0, 0))
    both.add_row(types, overall)
    up = [name.removeprefix(ALARM).replace("_", " ") for name, value in metrics.items() if name.startswith(ALARM) and value]
    return Panel(
        both,
        title=Text("latest step", style="bold"),
        title_align="left",
        subtitle=Text(f"alarm: {', '.join(up)}", style="bold red") if up else None,
        subtitle_align="left",
        border_style="red" if up else "blue",
        expand=False,
    )


def _number(metrics: Mapping[str, float], name: str, number: str) -> str:
    return number.format(metrics[name]) if name in metrics else "–"


SAMPLE_LINES = 16
REFRESH_HZ = 4


class _Eta(ProgressColumn):
    """Time left by our own pace: rich's looks back 30 s only, and a step of a real model takes longer."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["eta"](), style="cyan")


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f}/{task.total:.0f}" if task.total is not None else f"{task.completed:.0f}", style="green")


class _Info(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["info"], style="dim")


class RichView:
    """A panel of the latest numbers, the lanes of the last step, the overall bar of steps, under it one bar for each open phase. Every text is
    shown as it is, never read as markup. out: where it is drawn, for a recording; else a terminal on `stream`."""

    def __init__(self, stream: TextIO, out: rich.console.Console | None = None) -> None:
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a terminal with a narrow encoding gets escapes: a letter that it lacks must not end the run
            stream.reconfigure(errors="backslashreplace")
        self._out = out or rich.console.Console(file=stream, force_terminal=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=28), _Count(), _Eta(), _Info(),
            console=self._out, auto_refresh=False,
        )  # fmt: skip
        self._bars: dict[Phase, TaskID] = {}
        self._overall: TaskID | None = None
        self._latest: dict[str, float] = {}
        self._lanes = ""
        self._eta: float | None = None
        self._explained = False
        self._live = Live(get_renderable=self.picture, console=self._out, transient=True, refresh_per_second=REFRESH_HZ)

    def picture(self) -> RenderableType:
        """What is drawn below the lines at this moment."""
        if self._overall is None:
            return self._progress
        return Group(run_panel(self._latest), *([Text(self._lanes, no_wrap=True)] if self._lanes else []), self._progress)

    def title(self, title: str, lines: list[str], steps: int, done: int) -> None:
        self._print(Panel(Text("\n".join(lines)), title=Text(title, style="bold"), title_align="left", border_style="blue"))
        if steps:
            self._overall = self._bar("steps", steps, done, lambda: f"ETA {clock_text(self._eta)}")

    def phase_began(self, phase: Phase) -> None:
        self._bars[phase] = self._bar(phase.name, phase.total, phase.done, lambda: phase.eta_text)

    def phase_moved(self, phase: Phase) -> None:
        self._progress.update(self._bars[phase], completed=phase.done, total=phase.total, info=phase.info_text)

    def phase_waits(self, phase: Phase) -> None:
        """Its bar moves by itself."""

    def phase_ended(self, phase: Phase) -> None:
        self._progress.remove_task(self._bars.pop(phase))

    def step(self, step: int, text: str, metrics: Mapping[str, float], eta: float | None) -> None:
        if not self._explained:
            self._explained = True
            self._print(Text("(three numbers: deduction/abduction/induction)", style="dim"))
        line = Text(text)
        line.stylize("bold", 0, text.find(" |") if " |" in text else len(text))
        self._print(line)
        self._latest |= metrics  # some are not measured in every step
        self._eta = eta
        if self._overall is not None:
            self._progress.update(self._overall, completed=step)

    def lanes(self, text: str) -> None:
        self._lanes = text

    def note(self, text: str) -> None:
        self._print(Text(text))

    def sample(self, heading: str, text: str, facts: dict[str, str | float]) -> None:
        body = Text("\n".join(clip(text, SAMPLE_LINES, max(self._out.width - 4, 20))))
        colour = "green" if float(facts["reward"]) > 0 else "red"
        self._print(Panel(body, title=Text(heading), title_align="left", border_style=colour))

    def close(self) -> None:
        self._live.stop()

    def _bar(self, name: str, total: int | None, done: int, eta: Callable[[], str]) -> TaskID:
        bar = self._progress.add_task(name, total=total, completed=done, eta=eta, info="")
        self._live.start()  # does nothing when it runs already
        return bar

    def _print(self, what: Text | Panel) -> None:
        self._out.print(what)
