"""What every way of showing a run is told, and the progress of one phase that they all read."""

from collections.abc import Callable, Mapping
from typing import Protocol

from azr_nemo.observe.text import printable
from azr_nemo.observe.timing import remaining

Info = float | int | str


class Phase:
    """One stretch of work in progress. total: how many items it has, None when nobody knows. info: what `advance` was last told."""

    def __init__(self, name: str, total: int | None, done: int, now: Callable[[], float], moved: Callable[["Phase"], None]) -> None:
        self.name = name
        self.total = total
        self.done = done
        self.info: dict[str, Info] = {}
        self._first = done
        self._now = now
        self._start = now()
        self._moved = moved

    def advance(self, n: int = 1, **info: Info) -> None:
        """`n` more items are done; info is shown beside the progress (a loss, a count)."""
        self.done += n
        self.info.update(info)
        self._moved(self)

    def expect(self, total: int) -> None:
        """How many items it has, once that is known."""
        self.total = total
        self._moved(self)

    @property
    def elapsed(self) -> float:
        """Seconds since the phase began."""
        return self._now() - self._start

    @property
    def remaining(self) -> float | None:
        """Seconds left at the pace since the phase began; None while unknown."""
        total = None if self.total is None else self.total - self._first
        return remaining(self.done - self._first, total, self.elapsed)

    @property
    def info_text(self) -> str:
        return "  ".join(f"{name.replace('_', ' ')} {_brief(value)}" for name, value in self.info.items())


class View(Protocol):
    """One way to show a run. Texts are printable already; nothing in them is markup."""

    def title(self, title: str, lines: list[str], steps: int, done: int) -> None: ...

    def phase_began(self, phase: Phase) -> None: ...

    def phase_moved(self, phase: Phase) -> None: ...

    def phase_ended(self, phase: Phase) -> None: ...

    def step(self, step: int, text: str, metrics: Mapping[str, float], eta: float | None) -> None: ...

    def note(self, text: str) -> None: ...

    def sample(self, heading: str, text: str, facts: dict[str, str | float]) -> None: ...

    def close(self) -> None: ...


def _brief(value: Info) -> str:
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value))
