"""Keeps what the model wrote and what it got for it: a thread writes each step's rollouts while the next step runs."""

import math
import os
import queue
import random
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from azr_nemo.errors import UserError
from azr_nemo.tasks.parsing import storable
from azr_nemo.tasks.task import Role, TaskType

if TYPE_CHECKING:
    import pyarrow as pa


FOLDER = "rollouts"


@dataclass(slots=True)
class Rollout:
    """One completion. task: the id in the buffer of the task that a proposal became or that was answered; None for a proposal that was refused.
    references: ids of the tasks that the proposer was shown. prompt: what the model was shown, prefill included. outcome: the slug of the verdict
    or refusal. reward: of an estimate, what it would earn. advantage: mean over the response's tokens; None when it is not trained on."""

    phase: str  # propose | estimate | solve
    role: Role
    type: TaskType
    task: int | None
    references: tuple[int, ...]
    prompt: str
    completion: str
    outcome: str
    reward: float
    advantage: float | None
    response_tokens: int


TEXTS = ("prompt", "completion", "outcome")


def schema() -> "pa.Schema":
    """The columns of a file: `step`, then the fields of Rollout."""
    import pyarrow as pa

    kinds = {
        "step": pa.int32(), "task": pa.int64(), "references": pa.list_(pa.int64()), "reward": pa.float32(), "advantage": pa.float32(),
        "response_tokens": pa.int32(),
    }  # fmt: skip
    nullable = ("task", "advantage")
    names = ["step", *(field.name for field in fields(Rollout))]
    return pa.schema([pa.field(name, kinds.get(name, pa.string()), nullable=name in nullable) for name in names])


def path_of(run_dir: Path, step: int) -> Path:
    """The file of one step."""
    return run_dir / FOLDER / f"step-{step:06d}.parquet"


def write_step(run_dir: Path, step: int, rollouts: list[Rollout]) -> None:
    """Writes the file of one step, whole or not at all: written aside, synced, renamed. Raises OSError when there is no place for it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {"step": [step] * len(rollouts)}
    for field in fields(Rollout):
        values = [getattr(rollout, field.name) for rollout in rollouts]
        columns[field.name] = [storable(text) for text in values] if field.name in TEXTS else values
    table = pa.table(columns, schema=schema())
    target = path_of(run_dir, step)
    aside = target.with_name(f".{target.name}.writing")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def drop_after(run_dir: Path, step: int) -> None:
    """Deletes the files of steps after `step`, and what a kill left half-written. Raises OSError when the folder cannot be written."""
    for path in (run_dir / FOLDER).glob(".step-*.writing"):
        path.unlink()
    for number, path in stored_steps(run_dir).items():
        if number > step:
            path.unlink()


def stored_steps(run_dir: Path) -> dict[int, Path]:
    """The files of a run by their steps, in order; empty for a run that wrote none."""
    found = {path.stem.removeprefix("step-"): path for path in (run_dir / FOLDER).glob("step-*.parquet")}
    return dict(sorted((int(number), path) for number, path in found.items() if number.isdecimal()))


def read_table(path: Path, columns: Iterable[str] | None = None) -> "pa.Table":
    """The file of one step as an Arrow table, or some of its columns. Raises UserError when it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=None if columns is None else list(columns), partitioning=None)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} cannot be read as a step's rollouts ({reason}): delete it if it is damaged; the others do not need it"
        ) from None


def read_rollouts(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Every stored rollout of a run, step by step, as {"step", **Rollout}. Raises UserError at a file that cannot be read."""
    for path in stored_steps(run_dir).values():
        yield from read_table(path).to_pylist()


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
