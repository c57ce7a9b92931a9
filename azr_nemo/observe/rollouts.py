"""Keeps what the model wrote and what it got for it: a thread writes each step's rollouts while the next step runs."""

import math
import queue
import random
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from azr_nemo.errors import UserError
from azr_nemo.observe.rollout_files import FOLDER, Rollout, drop_after, write_step

BEHIND = 2  # steps that may wait while one is being written; a disk that is slower than training makes the step wait at last
PATIENCE_S = 600.0  # for the disk
AT_THE_END_S = 10.0  # for the thread to end


class RolloutLog:
    """Writes `run_dir/rollouts/step-NNNNNN.parquet`: of each step a share of its rollouts, from 0 (none) to 1 (all).

    A context: leaving it waits for what is not written yet. seed: the run's; with it, the step and its rollouts the choice is always the same.
    """

    def __init__(self, run_dir: Path, share: float, seed: int = 0) -> None:
        self.run_dir, self.share, self.seed = run_dir, share, seed
        self._queue: queue.Queue[tuple[int, list[Rollout]] | None] = queue.Queue(BEHIND)
        self._thread: threading.Thread | None = None
        self._failure: UserError | None = None

    def write(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Hands this step's share to the thread and returns. Raises UserError when an earlier step could not be written (a full disk), or when
        the disk has not taken it within PATIENCE_S."""
        self._check()
        if not self.share:
            return
        chosen = choose(rollouts, self.share, random.Random(f"{self.seed}/rollouts/{step}"))
        self._start()
        try:
            self._queue.put((step, chosen), timeout=PATIENCE_S)
        except queue.Full:
            raise self._late() from None

    def flush(self) -> None:
        """Until all that was handed over is on disk. From any thread. Raises as write does."""
        with self._queue.all_tasks_done:
            written = self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, PATIENCE_S)
        if not written:
            raise self._late()
        self._check()

    def rewind(self, step: int) -> None:
        """Drops the rollouts of steps after `step`; -1 drops all. Raises UserError when the run directory cannot be written."""
        self.flush()
        try:
            drop_after(self.run_dir, step)
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Idempotent. Raises as write does, once all is on disk that can be."""
        try:
            self.flush()
        finally:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif not issubclass(kind, KeyboardInterrupt):
            self._stop()  # the run has failed: what is on its way still gets its time, and the run's own error is the one to tell

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="rollouts", daemon=True)
            self._thread.start()

    def _stop(self) -> None:
        """After what is on its way. A thread that the disk holds up is left alone: it ends with the process."""
        if self._thread is not None:
            with suppress(queue.Full):
                self._queue.put(None, timeout=AT_THE_END_S)
                self._thread.join(AT_THE_END_S)
            self._thread = None

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if self._failure is None:  # else the run is about to end
                    write_step(self.run_dir, *item)
            except OSError as error:
                self._failure = self._failed(error)
            except Exception as error:
                self._failure = UserError(f"the rollouts of step {item[0]} could not be written: {error!r}")
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _failed(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {self.run_dir / FOLDER} ({error.strerror or error}): expected a writable run_dir with free space; make room, or write "
            "fewer with logging.rollouts=0.1, then give the same command again"
        )

    def _late(self) -> UserError:
        return UserError(
            f"{self.run_dir / FOLDER} has taken nothing for {PATIENCE_S:.0f} s: look at the disk of run_dir, then give the same command again"
        )


def choose(rollouts: Sequence[Rollout], share: float, rng: random.Random) -> list[Rollout]:
    """About `share` of each (phase, task type), in their original order. All that answer one prompt are taken or left together, so that solve
    rates can be read off what is kept. What is left over of a prompt is its chance, so that the share holds over steps with few prompts, too."""
    if share >= 1:
        return list(rollouts)
    prompts: defaultdict[tuple[str, str], dict[str, list[int]]] = defaultdict(dict)
    for index, rollout in enumerate(rollouts):
        prompts[rollout.phase, rollout.type].setdefault(rollout.prompt, []).append(index)
    kept: list[int] = []
    for answers in prompts.values():
        count = math.floor(share * len(answers) + rng.random())
        kept += [index for indices in rng.sample(list(answers.values()), count) for index in indices]
    return [rollouts[index] for index in sorted(kept)]


def examples(rollouts: Sequence[Rollout], rng: random.Random) -> list[Rollout]:
    """A proposal and a solution, to be shown while the run goes."""
    found = [[rollout for rollout in rollouts if rollout.phase == phase] for phase in ("propose", "solve")]
    return [rng.choice(rows) for rows in found if rows]
