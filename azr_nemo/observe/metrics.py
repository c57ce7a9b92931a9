"""The run's numbers: one line a step in metrics.jsonl and, if wanted, the same as TensorBoard scalars. docs/metrics.md lists the names."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azr_nemo.errors import UserError
from azr_nemo.observe.jsonl import JsonlLog, read_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Writes `run_dir/metrics.jsonl` and, with `tensorboard`, event files under `run_dir/tensorboard`.

    Every write is on its way to the disk when the call returns, so a kill loses at most the line being written.
    """

    def __init__(self, run_dir: Path, tensorboard: bool) -> None:
        """Raises UserError when the run directory cannot be written."""
        self._log = JsonlLog(run_dir / "metrics.jsonl")
        self._events = run_dir / "tensorboard" if tensorboard else None
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends {"step", "time" (Unix seconds), **metrics}. Not-finite values are null in the file. Raises UserError on a full disk."""
        values = {name: float(value) for name, value in metrics.items()}
        self._log.append([{"step": step, "time": round(time.time(), 3), **values}])
        if self._events is None:
            return
        with self._writing_events():
            writer = self._writer = self._writer or self._open_events(self._events)
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()

    def rewind(self, step: int) -> None:
        """Forgets what came after `step`, for a run that resumes there; -1 forgets everything."""
        self._log.rewind(step)
        self._purge_step = step + 1
        self._close_events()

    def close(self) -> None:
        self._log.close()
        self._close_events()

    def _open_events(self, folder: Path) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter  # a second of imports, paid only where it is switched on

        return SummaryWriter(str(folder), purge_step=self._purge_step)

    def _close_events(self) -> None:
        if self._writer is not None:
            with self._writing_events():
                self._writer.close()
            self._writer = None

    @contextmanager
    def _writing_events(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None  # its thread is dead; closing it would only fail again, over the first failure
            raise UserError(
                f"cannot write TensorBoard events in {self._events} ({error.strerror}): make room there, or set logging.tensorboard=false"
            ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in order, a torn last line left out; null stands for a value that was not finite.

    Raises UserError when there is no such file or a line in its middle is damaged.
    """
    return list(read_rows(path))
