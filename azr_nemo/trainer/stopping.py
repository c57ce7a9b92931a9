"""SIGINT and SIGTERM: the first one lets the step end, saves and stops; the second one stops at once."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequest:
    """A context in which `requested` tells whether somebody asked the run to stop. `at_once` makes the first signal raise, too: for
    phases with nothing to save."""

    def __init__(self) -> None:
        self.requested = ""
        self.at_once = True
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self.at_once:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
