"""What one sees while a run goes: phases with their progress, one line a step, now and then a sample of what the model wrote."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from azr_nemo.errors import UserError
from azr_nemo.observe.lanes import Span, lanes_text
from azr_nemo.observe.lines import JsonView, PlainView
from azr_nemo.observe.terminal import RichView
from azr_nemo.observe.text import printable
from azr_nemo.observe.timing import clock_text, remaining
from azr_nemo.observe.view import Phase, View
from azr_nemo.tasks.task import Role, TaskType

PHASES = ("propose", "execute", "estimate", "solve", "sample", "update", "refit", "evaluate", "save")
BEAT_S = 2.0  # how often the view may tell of phases that do not move
VIEWS: dict[str, Callable[[TextIO], View]] = {"rich": RichView, "plain": PlainView, "json": JsonView}


class Console:
    """Shows a run on `stream`: `rich` bars on a terminal, `plain` lines in a log, `json` lines for machines; `auto` chooses.

    Use it as a context manager: inside, a thread has it speak of phases that do not move, and leaving it gives the terminal back. Only rank 0
    has one; any of its threads may use it. Times are in seconds.
    """

    def __init__(self, mode: str = "auto", stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """Raises UserError on an unknown mode."""
        stream = stream or sys.stdout
        self.mode = _resolve(mode, stream)
        self._view = VIEWS[self.mode](stream)
        self._now = now
        self._lock = threading.RLock()  # around the view
        self._open: list[Phase] = []
        self._closing = threading.Event()
        self._steps = 0
        self._recent: deque[float] = deque(maxlen=10)  # seconds of the latest steps; early ones are no guide to later ones

    def start_run(self, title: str, lines: Iterable[str], steps: int = 0, done: int = 0) -> None:
        """Shows what is about to run. steps: how many the whole run has; done: how many a resumed run has behind it."""
        self._steps = steps
        with self._lock:
            self._view.title(printable(title), [printable(line) for line in lines], steps, done)

    @contextmanager
    def phase(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Phase]:
        """Progress of `total` items, `done` of which were done before. Phases nest."""
        phase = Phase(printable(name), total, done, self._now, self._moved)
        with self._lock:
            self._view.phase_began(phase)
            self._open.append(phase)
        try:
            yield phase
        finally:
            with self._lock:
                self._open.remove(phase)
                self._view.phase_ended(phase)

    def _moved(self, phase: Phase) -> None:
        with self._lock:
            if phase in self._open:  # else a late word of another thread
                self._view.phase_moved(phase)

    def beat(self) -> None:
        """Has the view speak of open phases of which it has said nothing for long."""
        with self._lock:
            for phase in self._open:
                self._view.phase_waits(phase)

    @contextmanager
    def stage(self, text: str) -> Iterator[Phase]:
        """Work whose length nobody can tell beforehand: a sentence, and a bar while it lasts."""
        self.note(text)
        with self.phase(text.split(" (")[0]) as phase:
            yield phase

    def step_line(self, step: int, metrics: Mapping[str, float]) -> None:
        """Two lines for a finished step, what came out and what it cost, from the metrics that docs/metrics.md names; missing ones are left out."""
        if "step/seconds" in metrics:
            self._recent.append(metrics["step/seconds"])
        eta = remaining(len(self._recent), len(self._recent) + max(self._steps - step, 0), sum(self._recent)) if self._steps else None
        text = "\n  ".join(filter(None, [step_text(step, self._steps, metrics, eta), phases_text(metrics)]))
        with self._lock:
            self._view.step(step, text, metrics, eta)

    def lanes(self, spans: list[Span]) -> None:
        """Who did what when in a finished step."""
        with self._lock:
            self._view.lanes(lanes_text(spans))

    def note(self, text: str) -> None:
        """A sentence about something that happened (saved, resumed, stopped)."""
        with self._lock:
            self._view.note(printable(text))

    def sample(self, role: Role, type: TaskType, text: str, outcome: str, reward: float) -> None:
        """A task or an answer as the model wrote it, and what came of it."""
        facts: dict[str, str | float] = {"role": role.value, "type": type.value, "outcome": printable(outcome), "reward": reward}
        with self._lock:
            self._view.sample(f"{role.value} {type.value}: {facts['outcome']}, reward {reward:.2f}", printable(text), facts)

    def close(self) -> None:
        """Idempotent."""
        self._closing.set()
        self._view.close()

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_S):
            self.beat()

    def __enter__(self) -> Self:
        threading.Thread(target=self._beat, name="console", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def step_text(step: int, steps: int, metrics: Mapping[str, float], eta: float | None) -> str:
    """The line of one step. Three numbers with slashes are deduction, abduction, induction; – stands for a missing one."""
    parts = [f"step {step}/{steps}" if steps else f"step {step}"]
    if "step/seconds" in metrics:
        parts.append(f"{metrics['step/seconds']:.1f} s")
    measures = [(name, _by_type(metrics, f"propose/{{}}/{name}")) for name in ("valid", "new", "lines", "reward")]
    proposed = [f"{name} {numbers}" for name, numbers in measures if numbers]
    if proposed:
        parts.append("proposed: " + ", ".join(proposed))
    for label, pattern in (("solved", "solve/{}/accuracy"), ("held out", "eval/{}")):
        if numbers := _by_type(metrics, pattern):
            parts.append(f"{label} {numbers}")
    if "throughput/generated_tokens_per_s" in metrics:
        parts.append(f"{metrics['throughput/generated_tokens_per_s']:.0f} tok/s")
    if eta is not None:
        parts.append(f"ETA {clock_text(eta)}")
    return " | ".join(parts)


def phases_text(metrics: Mapping[str, float]) -> str:
    """Seconds and peak memory of each phase, in the order of a step; phases that took less than a hundredth of a second are left out."""
    times = {name.removeprefix("time/").removesuffix("_s"): seconds for name, seconds in metrics.items() if name.startswith("time/")}
    order = sorted(times, key=lambda name: (PHASES.index(name) if name in PHASES else len(PHASES), name))
    return ", ".join(f"{name} {times[name]:.2f} s{_peaks(name, metrics)}" for name in order if times[name] >= 0.01)


def _peaks(phase: str, metrics: Mapping[str, float]) -> str:
    found = [(label, metrics.get(f"memory/{phase}_{kind}_gib")) for kind, label in (("rss", "GiB"), ("gpu", "GiB of GPU"))]
    return "".join(f" {peak:.1f} {label}" for label, peak in found if peak is not None)


def _by_type(metrics: Mapping[str, float], pattern: str) -> str:
    values = [metrics.get(pattern.format(kind.value)) for kind in TaskType]
    if all(value is None for value in values):
        return ""
    return "/".join("–" if value is None else f"{value:.2f}" for value in values)


def _resolve(mode: str, stream: TextIO) -> str:
    if mode in VIEWS:
        return mode
    if mode != "auto":
        raise UserError(f"logging.console is {mode!r}: expected auto, {', '.join(VIEWS)}")
    unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")  # rich's bars need it
    return "rich" if stream.isatty() and unicode else "plain"
