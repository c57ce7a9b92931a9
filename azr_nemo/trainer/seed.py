"""`azr-nemo seed`: seed tasks from a model or from files, validated by the executor."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from azr_nemo.config import RunConfig
from azr_nemo.errors import UserError
from azr_nemo.megatron.distributed import world_size
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.records import export_jsonl
from azr_nemo.selfplay.seed_files import SeedReport, load_seeds
from azr_nemo.tasks.task import TaskType
from azr_nemo.trainer.session import limits, make_executor

SCHEMAS = ("native", "reference")


def seed_from_files(config: RunConfig, files: list[Path], out: Path | None, schema: str) -> Table:
    """Runs every program of the files again; what holds is written to `out`. Returns the table of what was accepted and refused."""
    _check(schema)
    bounds = replace(limits(config.executor), wall_s=5.0, cpu_s=5.0, output_chars=8000)
    with ExitStack() as stack:
        executor = stack.enter_context(make_executor(config.executor))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        buffer = stack.enter_context(TaskBuffer(folder / "buffer.sqlite", 1_000_000))
        report = load_seeds(files, buffer, executor, tuple(config.selfplay.imports), bounds, 10)
        if out:
            export_jsonl(buffer, out, schema)  # type: ignore[arg-type]
    table = Table(*SeedReport.HEADER, title="seed files", show_lines=True)
    for row in report.rows():
        table.add_row(*row[:-1], row[-1].replace(", ", "\n"))
    return table


def seed_from_model(config: RunConfig, out: Path | None, schema: str) -> Table:
    """Prompts the recipe's model until there are enough valid tasks; a run that is killed goes on in the same run_dir."""
    from azr_nemo.trainer.loop import train

    _check(schema)
    if world_size() > 1:
        raise UserError("azr-nemo seed runs in one process: start it without torchrun")
    train(config, only_seed=True)
    with TaskBuffer(Path(config.run_dir) / "buffer.sqlite", config.selfplay.buffer_capacity) as buffer:
        if out:
            export_jsonl(buffer, out, schema)  # type: ignore[arg-type]
        table = Table("type", "tasks", title=f"seeds in {config.run_dir}")
        for kind in TaskType:
            table.add_row(kind.value, str(buffer.count(kind)))
    return table


def _check(schema: str) -> None:
    if schema not in SCHEMAS:
        raise UserError(f"--schema {schema} is unknown: choose native or reference")
