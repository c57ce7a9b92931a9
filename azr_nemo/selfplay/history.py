"""What the buffer held when a step began, for rewards that ask how surprising a task is."""

from collections import Counter

from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.tasks.task import TaskType


class BufferHistory:
    """Counts of the inputs and outputs of the buffer's tasks, counted when first asked for: whoever needs them before the buffer changes asks
    before it does (azr_nemo.rewards.intrinsic.component.History)."""

    def __init__(self, buffer: TaskBuffer):
        self._buffer = buffer
        self._counts: dict[tuple[TaskType, str], Counter[str]] = {}

    def inputs(self, type: TaskType) -> Counter[str]:
        return self._count(type, "inputs")

    def outputs(self, type: TaskType) -> Counter[str]:
        return self._count(type, "outputs")

    def _count(self, type: TaskType, what: str) -> Counter[str]:
        if (type, what) not in self._counts:
            self._counts[type, what] = Counter(value for stored in self._buffer.tasks(type) for value in getattr(stored.task, what))
        return self._counts[type, what]
