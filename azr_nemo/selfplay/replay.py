"""Right answers of the last steps, which an update learns from once more (arXiv 2604.08706).

Whoever pays for an answer by sampling it may as well learn from it twice. The second update has other weights than those that drew it, so the row is an
older one (azr_nemo/megatron/policy.py): the loss moves away from the probability that it was drawn with, and PPO's clip ends what has been learnt.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from azr_nemo.selfplay.batch import Row
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completion, groups
from azr_nemo.tasks.task import Role

NOTE = "replay"  # the buffer's note of them, by step: they are saved and restored with the tasks


class Replay:
    """The solver's rows with a positive advantage, of the last `steps` steps; 0: none."""

    def __init__(self, buffer: TaskBuffer, steps: int):
        self.buffer, self.steps = buffer, steps

    def rows(self, number: int) -> list[Row]:
        """What step `number` learns from once more, the oldest first, each with the advantage that it had."""
        kept = self._kept(number) if self.steps else {}
        return [_unpacked(entry) for step in sorted(kept, key=int) for entry in kept[step]]

    def keep(self, number: int, rows: Sequence[Row]) -> None:
        """Takes step `number`'s own rows, of which those that are right are learnt from again, and drops what is too old."""
        if self.steps:
            right = [asdict(row) for row in rows if row.advantage > 0 and groups()[row.group][0] is Role.SOLVE]
            self.buffer.write_note(NOTE, {**self._kept(number + 1), str(number): right})

    def _kept(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """By step, what is young enough for step `number`; nothing of that step or of later ones, should it be repeated."""
        note = self.buffer.read_note(NOTE)
        return {step: rows for step, rows in note.items() if number - self.steps <= int(step) < number}


def _unpacked(entry: dict[str, Any]) -> Row:
    return Row(**{**entry, "completion": Completion.of(entry["completion"])})
