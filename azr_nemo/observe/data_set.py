"""A run's rollouts and tasks as a data set that travels: Parquet, and a card by which `datasets` finds both."""

import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.observe.report.read import TaskRow, checkpoints, tasks
from azr_nemo.observe.rollout_log import stored_steps
from azr_nemo.settings.compose import from_yaml
from azr_nemo.tasks.parsing import storable

CARD = """---
license: {license}
tags:
- absolute-zero
- code
- reinforcement-learning
- synthetic
configs:
- config_name: tasks
  data_files: tasks.parquet
  default: true
- config_name: rollouts
  data_files: rollouts/*.parquet
---
# {name}

Tasks that a language model proposed to itself, and what it answered, in a run of AZR-NeMo (Absolute Zero Reasoner, arXiv 2505.03335). Nobody wrote
them: every program was run in a jail, and every answer was judged by running it.

    from datasets import load_dataset
    tasks = load_dataset({place!r}, "tasks", split="train")
    rollouts = load_dataset({place!r}, "rollouts", split="train")

{settings}

## tasks: {tasks:,} rows

A program `f` with its inputs (argument texts) and outputs (Python literals). `type`: what was hidden from the solver (deduction: the
output, abduction: the input, induction: the program). `step`: when it was proposed, 0 for seeds. `references`: ids of the tasks that its
proposer was shown. `attempts`, `solved`: answers to it and how many were right.

## rollouts: {steps:,} steps

Every completion that was kept: `phase`, `role`, `type`, `task` (an id above), `references`, `prompt`, `completion`, `outcome`, `reward`, `advantage`,
`response_tokens`. Programs and answers were written by a model: do not run them outside a sandbox.
"""


def write_data_set(run_dir: Path, out: Path, license: str = "unknown") -> tuple[int, int]:
    """Writes DIR/README.md, tasks.parquet and rollouts/*.parquet, whole or not at all; returns the numbers of tasks and of steps. license: as hubs
    name them. Raises UserError when there is no run, when out exists, or cannot be written."""
    import pyarrow.parquet as pq

    if out.exists():
        raise UserError(f"{out} already exists: choose another name")
    notes: list[str] = []
    found, steps = tasks(run_dir, notes), stored_steps(run_dir)
    if not found and not steps:
        raise UserError(f"{run_dir} holds neither tasks nor rollouts: expected the directory of a run; check the path")
    aside = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "rollouts").mkdir(parents=True)
        pq.write_table(_table(found), aside / "tasks.parquet", compression="zstd")
        for path in steps.values():
            shutil.copyfile(path, aside / "rollouts" / path.name)
        card = CARD.format(
            name=run_dir.resolve().name, place=str(out), license=license, settings=_settings(run_dir), tasks=len(found), steps=len(steps)
        )
        (aside / "README.md").write_text(card, encoding="utf-8")
        aside.rename(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another place") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(found), len(steps)


def _table(found: list[TaskRow]) -> Any:
    """The tasks as Arrow has them: lists of texts stay lists."""
    import pyarrow as pa

    kinds = {
        "id": pa.int64(), "lines": pa.int32(), "step": pa.int32(), "is_seed": pa.bool_(), "references": pa.list_(pa.int64()),
        "attempts": pa.int64(), "solved": pa.int64(), "inputs": pa.list_(pa.string()), "outputs": pa.list_(pa.string()),
    }  # fmt: skip
    names = [field.name for field in fields(TaskRow)]
    rows = [{name: storable(value) if isinstance(value, str) else value for name, value in asdict(row).items()} for row in found]
    return pa.Table.from_pylist(rows, schema=pa.schema([pa.field(name, kinds.get(name, pa.string())) for name in names]))


def _settings(run_dir: Path) -> str:
    """What the run was, where a checkpoint says it."""
    for path in checkpoints(run_dir):
        try:
            config = from_yaml(path / "config.yaml")
        except UserError:
            continue
        return f"Recipe `{config.recipe}`, model `{config.model.path}`, seed {config.seed}, prompts in the style {config.selfplay.prompt_style}."
    return "No checkpoint says what the run's settings were."
