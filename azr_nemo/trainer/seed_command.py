"""`azr-nemo seed`: seed tasks from a model or from files, validated by the executor."""

import json
import sys
import tempfile
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from azr_nemo.environments.rows import FORMS, rows_for
from azr_nemo.errors import UserError
from azr_nemo.megatron.distributed import world_size
from azr_nemo.observe.console import Console
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.records import export_jsonl, write_jsonl
from azr_nemo.selfplay.seed_files import SeedReport
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.task import TaskType
from azr_nemo.trainer.session import read_seeds

OWN = ("native", "reference")


def seed_from_files(config: RunConfig, files: list[Path], out: Path | None, schema: str, report_to: Path | None = None) -> Group:
    """Runs every program of the files again, within `executor`'s limits; what holds is written to `out`, and what became of every row to
    `report_to`, as JSON. Returns the table of what was accepted and refused."""
    _check(schema)
    with ExitStack() as stack:
        executor = stack.enter_context(make_executor(config.executor))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        buffer = stack.enter_context(TaskBuffer(folder / "buffer.sqlite", 1_000_000))
        console = stack.enter_context(Console(config.logging.console, sys.stderr))  # stdout has the table
        report = read_seeds(config, files, buffer, executor, console)
        if out:
            _export(buffer, out, schema)
        if report_to:
            _write(report_to, json.dumps(report.as_json(), indent=1))
    return _table(report)


def _table(report: SeedReport) -> Group:
    """The counts, narrow enough for 80 columns (replaced: accepted, with our output); why rows were refused stands below."""
    table = Table("", "rows", "accepted", "replaced", "duplicates", "refused", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    reasons = []
    for file, rows in groupby(report.rows(), key=itemgetter(0)):
        table.add_row(file, style="bold")
        for _, type, *counts, why in rows:
            table.add_row(f"  {type}", *counts)
            if why:
                reasons.append(Text(f"refused in {file}, {type}: {why}"))
    return Group(table, *reasons)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--report {path} cannot be written ({error.strerror}): give another path") from None


def seed_from_model(config: RunConfig, out: Path | None, schema: str) -> Table:
    """Prompts the recipe's model until there are enough valid tasks; a run that is killed goes on in the same run_dir."""
    from azr_nemo.trainer.loop import train

    _check(schema)
    if world_size() > 1:
        raise UserError("azr-nemo seed runs in one process: start it without torchrun")
    if code := train(config, only_seed=True):
        sys.exit(code)
    with TaskBuffer(Path(config.run_dir) / "buffer.sqlite", config.selfplay.buffer_capacity) as buffer:
        if out:
            _export(buffer, out, schema)
        table = Table("type", "tasks", title=f"seeds in {config.run_dir}")
        for kind in TaskType:
            table.add_row(kind.value, str(buffer.count(kind)))
    return table


def _check(schema: str) -> None:
    if schema not in (*OWN, *FORMS):
        raise UserError(f"--schema {schema} is unknown: choose {', '.join(OWN)} or one for others' trainers, {', '.join(FORMS)}")


def _export(buffer: TaskBuffer, out: Path, schema: str) -> None:
    if schema in FORMS:
        write_jsonl(out, rows_for([stored.task for stored in buffer.tasks()], schema))
    else:
        export_jsonl(buffer, out, schema)  # type: ignore[arg-type]
