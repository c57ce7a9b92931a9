"""Where a run's metrics go beside metrics.jsonl."""

from collections.abc import Mapping
from typing import Protocol


class Sink(Protocol):
    """One service or format. Each method raises UserError, naming the setting that switches it off, when it cannot do its work."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes a finished step's metrics; they are on their way when it returns. Values may be nan or infinite."""
        ...

    def rewind(self, step: int) -> None:
        """The run goes on after `step` (-1: from its beginning): what came later is written again."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...
