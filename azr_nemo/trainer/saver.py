"""Saving on rank 0: a step's state is taken at once, and a checkpoint is made of it by a thread while the next steps run."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written, write_file
from azr_nemo.megatron.controller import MegatronEngine
from azr_nemo.megatron.saving import Saving
from azr_nemo.runs.checkpoints import Checkpoints
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.storage import write_image
from azr_nemo.trainer.flight import FILE

MB = 1_000_000
POLL_S = 0.5
AFTER_AN_ERROR_S = 60.0  # for a checkpoint in the making, when the run has failed: the other ranks may be gone


class Saver:
    """Makes one checkpoint after another. A context that waits for the last one; when the run fails it still gets its time, and only a second
    stop request leaves it undone. limit_s: longest wait for the ranks' parts. logs: waits for what the run's logs have not written yet; a resumed
    run drops what they tell of later steps, and cannot make up for what is missing."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        engine: MegatronEngine,
        config: str,
        asynchronous: bool,
        limit_s: float,
        logs: Callable[[], None] = lambda: None,
    ):
        self.checkpoints, self.engine, self.config = checkpoints, engine, config
        self.asynchronous, self.limit_s, self.logs = asynchronous, limit_s, logs
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, step: int, buffer: TaskBuffer, image: bytes | None = None, in_flight: bytes = b"") -> None:
        """Takes the state that follows `step`, once the checkpoint before is complete. image: the buffer's, where it has gone on since; in_flight:
        what is sampled and not learnt from (flight.py). Raises UserError when that one, or this one in
        synchronous saving, could not be written."""
        self.wait()
        saving = self.engine.start_saving(self.checkpoints.begin(step), self.asynchronous)
        work = (step, saving, image or buffer.image(), in_flight)
        self._thread = threading.Thread(target=self._complete, args=work, name="checkpoint", daemon=True)
        self._thread.start()
        if not self.asynchronous:
            self.wait()

    def _complete(self, step: int, saving: Saving, buffer: bytes, in_flight: bytes) -> None:
        def write(directory: Path) -> dict[str, Written]:
            try:
                write_image(buffer, directory / "buffer.sqlite")
                own = {"buffer.sqlite": Written.of(buffer), "config.yaml": write_file(directory / "config.yaml", self.config.encode())}
                if in_flight:
                    own[FILE] = write_file(directory / FILE, in_flight)
                self.logs()
            finally:
                parts = saving.wait(self.limit_s)  # also after a failure here: until then the other ranks write into the directory
            return own | parts

        try:
            self.checkpoints.complete(step, write)
        except BaseException as error:
            self._failure = error  # for the run's own thread

    def check(self) -> None:
        """Raises the UserError of a checkpoint that could not be written."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self, limit_s: float | None = None) -> None:
        """Until the checkpoint in the making is complete. Raises as check does."""
        end = None if limit_s is None else time.monotonic() + limit_s
        while self._thread is not None and self._thread.is_alive() and (end is None or time.monotonic() < end):
            self._thread.join(POLL_S)
            written, whole = self.checkpoints.growth()
            progress.stand(written // MB, whole // MB, "MB")
        self.check()

    def latest(self) -> Path | None:
        """The latest checkpoint, once the one in the making is complete or has failed, which is told at the end."""
        if self._thread is not None:
            self._thread.join(AFTER_AN_ERROR_S)
        return self.checkpoints.latest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        elif not issubclass(kind, KeyboardInterrupt):
            try:
                self.wait(AFTER_AN_ERROR_S)
            except UserError as failure:
                if isinstance(error, UserError):
                    raise UserError(f"{error}; and {failure}") from error
                if error is not None:
                    error.add_note(str(failure))
