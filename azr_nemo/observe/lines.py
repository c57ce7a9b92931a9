"""A run as lines: plain ones for a log file, JSON ones for machines."""

from collections.abc import Mapping
from typing import Any, TextIO

from azr_nemo.observe.jsonl import encode
from azr_nemo.observe.text import clip
from azr_nemo.observe.timing import clock_text
from azr_nemo.observe.view import Phase

REPORT_EVERY_S = 10.0  # a phase that takes longer says so this often while it moves,
SILENT_S = 25.0  # and this often while it does not
SAMPLE_LINES, SAMPLE_WIDTH = 16, 140


class _Throttle:
    """Which phases have something to say now: those that have been silent for long enough."""

    def __init__(self) -> None:
        self._said: dict[Phase, float] = {}

    def due(self, phase: Phase, every: float = REPORT_EVERY_S) -> bool:
        elapsed = phase.elapsed
        if elapsed - self._said.get(phase, 0.0) < every:
            return False
        self._said[phase] = elapsed
        return True

    def ended(self, phase: Phase) -> bool:
        """Forgets the phase; whether it had ever spoken."""
        return self._said.pop(phase, None) is not None


class PlainView:
    """Lines without colour or cursor movement. A phase shorter than REPORT_EVERY_S says nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._throttle = _Throttle()
        self._explained = False

    def title(self, title: str, lines: list[str], steps: int, done: int) -> None:
        self._print(title, *(f"  {line}" for line in lines))

    def phase_began(self, phase: Phase) -> None:
        pass

    def phase_moved(self, phase: Phase) -> None:
        if self._throttle.due(phase):
            self._say(phase, phase.share_text, phase.eta_text, phase.info_text)

    def phase_waits(self, phase: Phase) -> None:
        if self._throttle.due(phase, SILENT_S):
            self._say(phase, phase.share_text, phase.eta_text, f"{clock_text(phase.elapsed)} so far", phase.info_text)

    def phase_ended(self, phase: Phase) -> None:
        if self._throttle.ended(phase):
            self._say(phase, f"ended after {clock_text(phase.elapsed)}", phase.info_text)

    def step(self, step: int, text: str, metrics: Mapping[str, float], eta: float | None) -> None:
        if not self._explained:
            self._explained = True
            self._print("(three numbers: deduction/abduction/induction)")
        self._print(text)

    def lanes(self, text: str) -> None:
        """Too many lines for a log; the report has them."""

    def note(self, text: str) -> None:
        self._print(text)

    def sample(self, heading: str, text: str, facts: dict[str, str | float]) -> None:
        self._print(f"  {heading}", *(f"    | {line}".rstrip() for line in clip(text, SAMPLE_LINES, SAMPLE_WIDTH)))

    def close(self) -> None:
        pass

    def _say(self, phase: Phase, *words: str) -> None:
        self._print("  " + "  ".join(filter(None, [phase.name, *words])))

    def _print(self, *lines: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        text = "".join(f"{line}\n" for line in lines)
        # A log with a narrow encoding gets escapes: a letter that it lacks must not end the run.
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()


class JsonView:
    """One JSON object a line, with `event`: start, phase, step, note, sample. A phase reports both ends, and every REPORT_EVERY_S."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._throttle = _Throttle()

    def title(self, title: str, lines: list[str], steps: int, done: int) -> None:
        self._print("start", title=title, lines=lines, steps=steps, done=done)

    def phase_began(self, phase: Phase) -> None:
        self._phase(phase, "began")

    def phase_moved(self, phase: Phase) -> None:
        if self._throttle.due(phase):
            self._phase(phase, "running")

    def phase_waits(self, phase: Phase) -> None:
        if self._throttle.due(phase, SILENT_S):
            self._phase(phase, "running")

    def phase_ended(self, phase: Phase) -> None:
        self._throttle.ended(phase)
        self._phase(phase, "ended")

    def step(self, step: int, text: str, metrics: Mapping[str, float], eta: float | None) -> None:
        self._print("step", step=step, eta_s=eta, metrics=metrics)

    def lanes(self, text: str) -> None:
        """Too many lines for a log; the report has them."""

    def note(self, text: str) -> None:
        self._print("note", text=text)

    def sample(self, heading: str, text: str, facts: dict[str, str | float]) -> None:
        self._print("sample", **facts, text=text)

    def close(self) -> None:
        pass

    def _phase(self, phase: Phase, state: str) -> None:
        self._print(
            "phase", name=phase.name, state=state, done=phase.done, total=phase.total,
            elapsed_s=phase.elapsed, eta_s=phase.remaining, info=phase.info,
        )  # fmt: skip

    def _print(self, event: str, **fields: Any) -> None:
        self._stream.write(encode({"event": event, **fields}) + "\n")
        self._stream.flush()
