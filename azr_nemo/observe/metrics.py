"""The run's numbers: one line a step in metrics.jsonl and, where wanted, the same in TensorBoard and elsewhere. docs/metrics.md lists the names."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azr_nemo.errors import UserError
from azr_nemo.observe.jsonl import JsonlLog, read_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
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


class TensorBoard(Sink):
    """Event files in `folder`, opened with the first step. After a rewind TensorBoard shows each step once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with self._writing():
            writer = self._writer = self._writer or self._open()
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()

    def rewind(self, step: int) -> None:
        self._purge_step = step + 1
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            with self._writing():
                self._writer.close()
            self._writer = None

    def _open(self) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter  # a second of imports, paid only where it is switched on

        return SummaryWriter(str(self._folder), purge_step=self._purge_step)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None  # its thread is dead; closing it would only fail again, over the first failure
            raise UserError(
                f"cannot write TensorBoard events in {self._folder} ({error.strerror}): make room there, or set logging.tensorboard=false"
            ) from error


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
