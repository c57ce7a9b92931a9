"""Finds rollouts of a run and writes them for a reader: `azr-nemo rollouts`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.text import Text

from azr_nemo.errors import UserError
from azr_nemo.observe.rollout_log import FOLDER, read_table, stored_steps
from azr_nemo.observe.text import clip, printable
from azr_nemo.rewards.answer import MALFORMED
from azr_nemo.sandbox.executor import Status
from azr_nemo.tasks.task import Role, TaskType

CLASSES: dict[str, tuple[str, ...]] = {
    "ok": ("right", "solve_rate"),  # a right answer; a proposal that became a new task, which says its solve rate
    "wrong": ("wrong_value",),
    "malformed": tuple(sorted(MALFORMED)),
    "failed": tuple(status.value for status in Status if status not in (Status.OK, Status.SYNTAX)),  # it gave no value that can be compared
    "refused": (
        "banned_name", "composite_clash", "composite_name", "composite_redefined", "composite_statement", "composite_uncalled", "crowded_shape",
        "duplicate", "echo", "echoed_output", "generator", "held_out", "ignores_input", "import", "message_carries_program", "no_arguments", "no_entry",
        "no_parameter", "no_return", "not_a_value", "not_one_call", "prompt_too_long", "repeated_input", "syntax", "too_deep", "too_long",
    ),  # before anything ran, or as it is known already
}  # fmt: skip
NAMES = tuple(name for names in CLASSES.values() for name in names)


def matches(outcome: str, status: str) -> bool:
    """Whether an outcome is the one of this name, or of this class. `solve_rate=0.25` has the name solve_rate."""
    name = outcome.partition("=")[0]
    return status in (outcome, name) or name in CLASSES.get(status, ())


PHASES = ("propose", "estimate", "solve")
PROMPT_LINES, PROMPT_WIDTH = 8, 140  # of a prompt that is not shown whole


def choices() -> dict[str, tuple[str, ...]]:
    """The words that a rollout can be asked for by."""
    return {"role": tuple(Role), "phase": PHASES, "task": tuple(TaskType), "status": (*CLASSES, *NAMES)}


@dataclass(frozen=True)
class Wanted:
    """Which rollouts: those that are all of this; None for any. status: an outcome's name or class. contains: in the prompt or the completion."""

    role: str | None = None
    phase: str | None = None
    task: str | None = None
    status: str | None = None
    step: int | None = None
    contains: str | None = None

    def __post_init__(self) -> None:
        """Raises UserError for a word that no rollout can have."""
        for name, words in choices().items():
            value = getattr(self, name)
            if name != "task" and value is not None and value.partition("=")[0] not in words:
                raise _unknown(name, value, words)


def _unknown(name: str, value: str, words: Iterable[str]) -> UserError:
    return UserError(f"--{name} {printable(value)} is unknown: choose one of {', '.join(words)}")


def find(run_dir: Path, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """The rollouts that are wanted, as {"step", **Rollout}: the latest step first, within a step in the order of its phases.

    Raises UserError when the run has none at all, none of that step, or a file that cannot be read, and for a task type that neither this package nor
    the run knows: a type of an extension is known by its rollouts alone.
    """
    steps = stored_steps(run_dir)
    if not steps:
        raise UserError(
            f"{run_dir} has no rollouts: expected {run_dir / FOLDER}/step-*.parquet, which a run writes unless logging.rollouts=0; check the path"
        )
    if wanted.step is not None and wanted.step not in steps:
        raise UserError(f"{run_dir} has no rollouts of step {wanted.step}: the steps that it has lie between {min(steps)} and {max(steps)}")
    chosen = [path for step, path in steps.items() if wanted.step in (None, step)]
    if wanted.task is not None and wanted.task not in (types := choices()["task"]):
        here = {str(kind) for path in chosen for kind in read_table(path, ["type"]).column("type").unique().to_pylist()}
        if wanted.task not in here:
            raise _unknown("task", wanted.task, dict.fromkeys([*types, *sorted(here)]))
    return chain.from_iterable(_of_step(path, wanted) for path in reversed(chosen))


def _of_step(path: Path, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Texts are only read where the short columns have a match."""
    facts = read_table(path, ["role", "phase", "type", "outcome"]).to_pydict()
    asked = [(facts[column], value) for column, value in (("role", wanted.role), ("phase", wanted.phase), ("type", wanted.task)) if value]
    places = [
        place
        for place, outcome in enumerate(facts["outcome"])
        if all(column[place] == value for column, value in asked) and (wanted.status is None or matches(outcome, wanted.status))
    ]
    if places:
        for row in read_table(path).take(places).to_pylist():
            if wanted.contains is None or wanted.contains in row["prompt"] or wanted.contains in row["completion"]:
                yield row


def text(row: dict[str, Any], full: bool) -> Text:
    """One rollout to read: its facts, the prompt (its ends alone, unless `full`) and the completion, with control characters spelt out."""
    facts = [f"step {row['step']}", f"{row['phase']} {row['type']}", printable(row["outcome"]), f"reward {row['reward']:g}"]
    if row["advantage"] is not None:
        facts.append(f"advantage {row['advantage']:.3g}")
    if row["task"] is not None:
        facts.append(f"task {row['task']}")
    if row["references"]:
        facts.append(f"references {', '.join(map(str, row['references']))}")
    facts.append(f"{row['response_tokens']} tokens")
    prompt = printable(row["prompt"])
    shown = prompt if full else "\n".join(clip(prompt, PROMPT_LINES, PROMPT_WIDTH))
    return Text.assemble(
        (" | ".join(facts), "bold"), "\n", (shown, "dim"), "\n", (">>>", "bold"), f" {printable(row['completion']).rstrip()}\n"
    )
