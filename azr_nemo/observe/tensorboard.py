"""Metrics as TensorBoard scalars."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from azr_nemo.errors import UserError
from azr_nemo.observe.sink import Sink

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
