"""A model card for what a run trained: recipe, steps, seed, data, evaluation with intervals, licence of the base, all from the run's own files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.evaluation.results import read as read_results
from azr_nemo.observe.metrics import read_metrics
from azr_nemo.settings.compose import from_yaml
from azr_nemo.settings.schema import RunConfig

CARD = """---
library_name: transformers
license: {license}
base_model: {base}
pipeline_tag: text-generation
datasets: []
tags:
- absolute-zero
- reinforcement-learning
---
# {name}

`{base}`, trained by self-play with AZR-NeMo (Absolute Zero Reasoner, arXiv 2505.03335): the model proposes Python tasks, an executor proves
them, the same model solves them, and both roles learn from rewards that running programs gave.

| | |
|---|---|
| recipe | `{recipe}` |
| steps | {step} of {steps} |
| seed | {seed} |
| data | {data} |
| what learnt | {learnt} |
| advantages, loss | {advantage}, {loss}, learning rate {lr:g} |
| prompts | the style `{style}` |
| versions | {versions} |

## Evaluation

{evaluation}

## Licence

{licence}
"""


def model_card(checkpoint: Path, name: str, evaluations: Sequence[Path] = ()) -> str:
    """The card of a checkpoint of a run. evaluations: `out` directories of `azr-nemo eval` of this model. Raises UserError when a file is damaged, or
    the checkpoint has no settings."""
    config, run_dir = from_yaml(checkpoint / "config.yaml"), checkpoint.parent.parent
    step = int(checkpoint.name.rpartition("_")[2]) if checkpoint.name.rpartition("_")[2].isdecimal() else config.selfplay.steps
    license, licence = _licence(Path(config.model.path), config.model.path)
    lora = config.model.lora
    return CARD.format(
        name=name, license=license, licence=licence, base=config.model.path, recipe=config.recipe, step=step, steps=config.selfplay.steps,
        seed=config.seed, data=_data(config), advantage=config.advantage.name, loss=config.optim.loss, lr=config.optim.lr,
        learnt=f"adapters of rank {lora.rank}, merged" if lora.rank else "all weights", style=config.selfplay.prompt_style,
        versions=_versions(run_dir), evaluation=_evaluation(run_dir, step, evaluations),
    )  # fmt: skip


def _data(config: RunConfig) -> str:
    said = "none: all tasks are the model's own"
    if config.data.seed_files:
        said = f"seed tasks from {', '.join(Path(name).name for name in config.data.seed_files)}, then the model's own"
    return said + (f"; a warm start of {config.warmup.steps} updates on generated tasks" if config.warmup.steps else "")


def _versions(run_dir: Path) -> str:
    try:
        found: dict[str, Any] = json.loads((run_dir / "versions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "not recorded"
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _evaluation(run_dir: Path, step: int, evaluations: Sequence[Path]) -> str:
    """Tables of shares of right answers with 95% intervals."""
    parts = []
    if rows := _held_out(run_dir, step):
        parts += ["Held out from the run, greedy, with 95% Wilson intervals:", "", _table(["task", "step", "right", "95%"], rows), ""]
    for place in evaluations:
        results = read_results(place)
        found = [
            [suite, f"{figures['items']} of {figures['size']}", _percent(figures["pass@1"]), _span(figures["low"], figures["high"])]
            for suite, figures in results["suites"].items()
        ]
        parts += ["`azr-nemo eval`, pass@1 with 95% intervals over items:", "", _table(["suite", "items", "pass@1", "95%"], found), ""]
    return "\n".join(parts).rstrip() or "None was made in the run, and none was named."


def _held_out(run_dir: Path, step: int) -> list[list[str]]:
    """The first and the last evaluation up to a step, of `eval/NAME` that have an interval."""
    if not (run_dir / "metrics.jsonl").is_file():
        return []
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if row["step"] <= step and any(key.startswith("eval/") for key in row)]
    shown = []
    for row in [rows[0], rows[-1]] if len(rows) > 1 else rows:
        for key in row:
            low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
            if key.startswith("eval/") and low is not None and high is not None and row[key] is not None:
                shown.append([key.removeprefix("eval/"), str(row["step"]), _percent(row[key]), _span(low, high)])
    return shown


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def _licence(base: Path, name: str) -> tuple[str, str]:
    """As hubs name it, and in a sentence: what the base model's own files say."""
    if name.startswith("embedded:"):  # azr_nemo.models.embedded
        return "apache-2.0", f"`{name}` is licensed under Apache 2.0; so are these weights."
    if name.startswith("scratch:"):
        return "apache-2.0", "The weights began as random numbers; they are licensed as AZR-NeMo is, under Apache 2.0."
    try:
        said = re.search(r"^license:\s*(\S+)", (base / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        said = None
    if said:
        return said[1], f"The base model's card says `license: {said[1]}`, which holds for these weights too."
    return "other", f"The files of `{name}` do not say their licence: look it up before these weights go on, for it holds for them too."


def require_run(checkpoint: Path) -> None:
    """Raises UserError when a card could not be written: a model that no run trained has nothing to say."""
    if not (checkpoint / "config.yaml").is_file():
        raise UserError(f"--card is for a run or one of its checkpoints, which {checkpoint} is not: leave it out")
