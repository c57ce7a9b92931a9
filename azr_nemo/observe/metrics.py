"""The run's numbers: one line a step in metrics.jsonl and, where wanted, the same in TensorBoard and elsewhere. docs/metrics.md lists the names."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from azr_nemo.observe.jsonl import JsonlLog, read_rows
from azr_nemo.observe.sink import Sink
from azr_nemo.observe.tensorboard import TensorBoard


class MetricsLog:
    """Writes `run_dir/metrics.jsonl`, with `tensorboard` event files under `run_dir/tensorboard`, and hands the same to other sinks.

    Every write is on its way to the disk when the call returns, so a kill loses at most the line being written.
    """

    def __init__(self, run_dir: Path, tensorboard: bool, others: Sequence[Sink] = ()) -> None:
        """Raises UserError when the run directory cannot be written."""
        self._log = JsonlLog(run_dir / "metrics.jsonl")
        self._sinks: list[Sink] = [*([TensorBoard(run_dir / "tensorboard")] if tensorboard else []), *others]

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends {"step", "time" (Unix seconds), **metrics}. Not-finite values are null in the file. Raises UserError on a full disk."""
        values = {name: float(value) for name, value in metrics.items()}
        self._log.append([{"step": step, "time": round(time.time(), 3), **values}])
        for sink in self._sinks:
            sink.write(step, values)

    def rewind(self, step: int) -> None:
        """Forgets what came after `step`, for a run that resumes there; -1 forgets everything."""
        self._log.rewind(step)
        for sink in self._sinks:
            sink.rewind(step)

    def rows(self) -> list[dict[str, Any]]:
        """What has been written so far, as `read_metrics`."""
        return read_metrics(self._log.path)

    def close(self) -> None:
        self._log.close()
        for sink in self._sinks:
            sink.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in order, a torn last line left out; null stands for a value that was not finite.

    Raises UserError when there is no such file or a line in its middle is damaged.
    """
    return list(read_rows(path))
