"""Rollouts as they lie on disk: `RUN/rollouts/step-000012.parquet`, one file a step, written aside and renamed, compressed with zstd."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
