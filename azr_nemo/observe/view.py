"""What every way of showing a run is told, and the progress of one phase that they all read."""

from collections.abc import Callable, Mapping
from typing import Protocol

from azr_nemo.observe.text import printable
from azr_nemo.observe.timing import clock_text, remaining

Info = float | int | str


class Phase:
    """One stretch of work in progress. total: how many items it has, None when nobody knows. info: what `advance` was last told."""

    def __init__(self, name: str, total: int | None, done: int, now: Callable[[], float], moved: Callable[["Phase"], None]) -> None:
        self.name = name
        self.total = total
        self.done = done
        self.info: dict[str, Info] = {}
        self.unit = ""  # of the items, where it is not told by the name
        self._first = done
        self._most: tuple[int, int] | None = None
        self._now = now
        self._start = now()
        self._moved = moved

    def advance(self, n: int = 1, **info: Info) -> None:
        """`n` more items are done; info is shown beside the progress (a loss, a count)."""
        self.done += n
        self.info.update(info)
        self._moved(self)

    def expect(self, total: int, unit: str = "") -> None:
        """How many items it has, once that is known."""
        self.total, self.unit = total, unit
        self._moved(self)

    def stand(self, done: int, total: int, unit: str = "") -> None:
        """How many items are done, where that is read off; total: 0 where nobody knows."""
        self.done, self.total, self.unit = done, total or None, unit
        self._moved(self)

    def at_most(self, done: int, most: int, **info: Info) -> None:
        """What is done of the most that the phase can come to: a bound of the time that is left, until an item is done."""
        self._most = (done, most)
        self.info.update(info)
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
    def share_text(self) -> str:
        """How much is done: 12/40 (30%), 3 done; empty where nothing is counted."""
        unit = f" {self.unit}" if self.unit else ""
        if self.total:
            return f"{self.done}/{self.total}{unit} ({min(self.done / self.total, 1):.0%})"
        return f"{self.done}{unit} done" if self.done else ""

    @property
    def eta_text(self) -> str:
        """How long is left, or at most; -:-- where nobody can tell."""
        left = self.remaining
        if left is None and self._most and (most := remaining(*self._most, self.elapsed)) is not None:
            return f"ETA at most {clock_text(most)}"
        return f"ETA {clock_text(left)}"

    @property
    def info_text(self) -> str:
        return "  ".join(f"{name.replace('_', ' ')} {_brief(value)}" for name, value in self.info.items())


class View(Protocol):
    """One way to show a run. Texts are printable already; nothing in them is markup."""

    def title(self, title: str, lines: list[str], steps: int, done: int) -> None: ...

    def phase_began(self, phase: Phase) -> None: ...

    def phase_moved(self, phase: Phase) -> None: ...

    def phase_waits(self, phase: Phase) -> None:
        """Now and then, while a phase is open: it may have nothing to tell of."""
        ...

    def phase_ended(self, phase: Phase) -> None: ...

    def step(self, step: int, text: str, metrics: Mapping[str, float], eta: float | None) -> None: ...

    def lanes(self, text: str) -> None:
        """Who did what when in the last step, as lines of blocks; of use only where it can be kept in sight."""
        ...

    def note(self, text: str) -> None: ...

    def sample(self, heading: str, text: str, facts: dict[str, str | float]) -> None: ...

    def close(self) -> None: ...


def _brief(value: Info) -> str:
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value))
