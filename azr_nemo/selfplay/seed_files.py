"""Seed files: every row is validated again by running it here, and what was accepted or refused is counted with its reason.

Our own execution is the truth: a row whose stored output is empty, cut or wrong is accepted with the output that its program gives, and
counted as replaced. A broken row (see records.py) stops the loading before the buffer changes.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from azr_nemo.progress import Listener
from azr_nemo.sandbox.executor import Executor, Limits, gather
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import settled
from azr_nemo.selfplay.records import Record, read_jsonl
from azr_nemo.selfplay.validation import Validated, Validator
from azr_nemo.tasks.induction import leaks
from azr_nemo.tasks.parsing import same_literal
from azr_nemo.tasks.program import canonical_input, check, is_held_out, parse_arguments
from azr_nemo.tasks.task import Proposal, Refusal, Task, TaskType


@dataclass
class SeedCounts:
    """Rows of one file as tasks of one type: rows = accepted + duplicates + refused. output_replaced: accepted, with our output."""

    rows: int = 0
    accepted: int = 0
    output_replaced: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class RefusedRow:
    """One row that is no task, and why."""

    file: str
    line: int
    reason: str
    detail: str


@dataclass
class SeedReport:
    """What became of the rows of seed files. counts: by (file name, task type). refused: each refused row once, in the files' order."""

    counts: dict[tuple[str, TaskType], SeedCounts] = field(default_factory=dict)
    refused: list[RefusedRow] = field(default_factory=list)

    HEADER = ("file", "type", "rows", "accepted", "output replaced", "duplicates", "refused", "reasons")

    def rows(self) -> list[tuple[str, ...]]:
        """The table under HEADER, one line a file and task type."""
        table = []
        for (file, type), counts in self.counts.items():
            reasons = ", ".join(f"{reason} {count}" for reason, count in counts.refused.most_common())
            numbers = (counts.rows, counts.accepted, counts.output_replaced, counts.duplicates, counts.refused.total())
            table.append((file, type.value, *map(str, numbers), reasons))
        return table

    def sentences(self) -> list[str]:
        """The same in words, one sentence a file and task type."""
        return [_sentence(file, type, counts) for (file, type), counts in self.counts.items()]

    def as_json(self) -> dict[str, Any]:
        """The same numbers and every refused row, ready for `json.dumps`."""
        counts = [
            {
                "file": file,
                "type": type.value,
                "rows": counts.rows,
                "accepted": counts.accepted,
                "output_replaced": counts.output_replaced,
                "duplicates": counts.duplicates,
                "refused": dict(counts.refused.most_common()),
            }
            for (file, type), counts in self.counts.items()
        ]
        rows = [{"file": row.file, "line": row.line, "reason": row.reason, "detail": row.detail} for row in self.refused]
        return {"counts": counts, "refused": rows}


def load_seeds(
    files: Sequence[Path],
    buffer: TaskBuffer,
    executor: Executor,
    allowed_imports: Sequence[str],
    limits: Limits,
    pairs: int,
    phase: Listener | None = None,
    hold_out: bool = False,
) -> SeedReport:
    """Validates the rows of the files and stores those that hold as seeds of step 0. pairs: an induction row keeps its first so many pairs
    of different inputs. phase: is told of the rows that were run. hold_out: refuse the programs that held-out evaluation may ask about.

    All or nothing: raises UserError for a broken row and ExecutorUnavailable for a dead sandbox with the buffer as it was.
    """
    records = [_distinct(record, pairs) for file in files for record in read_jsonl(Path(file))]
    validator = Validator(executor, limits)
    if phase:
        phase.expect(len(records))
    started = (_start(record, allowed_imports, validator, hold_out) for record in records)
    validated = gather(started, phase.advance if phase else None)
    report = SeedReport()
    with buffer.transaction():
        for record, result in zip(records, validated, strict=True):
            _count(record, result, buffer, report)
    return report


def _sentence(file: str, type: TaskType, counts: SeedCounts) -> str:
    parts = [f"{file}, {type}: {counts.accepted} of {counts.rows} rows accepted"]
    if counts.output_replaced:
        parts.append(f"{counts.output_replaced} of them with the output that they gave here")
    if counts.duplicates:
        parts.append(f"{counts.duplicates} known already")
    if counts.refused:
        parts.append("refused: " + ", ".join(f"{reason} {count}" for reason, count in counts.refused.most_common()))
    return "; ".join(parts)


def _distinct(record: Record, pairs: int) -> Record:
    """The row with its first `pairs` pairs of different inputs."""
    kept: dict[str, tuple[str, str]] = {}
    for pair in zip(record.inputs, record.outputs, strict=True):
        kept.setdefault(canonical_input(pair[0]), pair)
    inputs, outputs = zip(*islice(kept.values(), pairs), strict=True)
    return replace(record, inputs=inputs, outputs=outputs)


def _start(record: Record, allowed_imports: Sequence[str], validator: Validator, hold_out: bool) -> Future[Validated]:
    proposal = Proposal(record.types[0], record.program, record.inputs, record.message)
    refusal = _static(proposal, allowed_imports)
    if not refusal and hold_out and is_held_out(record.program):
        refusal = Refusal("held_out", "held-out evaluation may ask about this program (eval.items)")
    return settled(refusal) if refusal else validator.submit(proposal)


def _static(proposal: Proposal, allowed_imports: Sequence[str]) -> Refusal | None:
    """The checks that a proposer's answer passes while it is parsed."""
    refusal = check(proposal.program, allowed_imports)
    for text in proposal.inputs:
        parsed = refusal or parse_arguments(text)
        refusal = parsed if isinstance(parsed, Refusal) else None
    if not refusal and proposal.type is TaskType.INDUCTION:
        if len(proposal.inputs) < 2:
            refusal = Refusal("too_few_pairs", "one pair to show and one to hide are the least")
        elif leaks(proposal.message, proposal.program):
            refusal = Refusal("message_carries_program", "the message gives the program away")
    return refusal


def _count(record: Record, result: Validated, buffer: TaskBuffer, report: SeedReport) -> None:
    name = record.file.name
    for type in record.types:
        counts = report.counts.setdefault((name, type), SeedCounts())
        counts.rows += 1
        if isinstance(result, Refusal):
            counts.refused[result.reason] += 1
        elif buffer.add(replace(result, type=type), step=0, seed=True, thought=record.thought) is None:
            counts.duplicates += 1
        else:
            counts.accepted += 1
            counts.output_replaced += not _states_outputs(record, result)
    if isinstance(result, Refusal):
        report.refused.append(RefusedRow(name, record.line, result.reason, result.detail))


def _states_outputs(record: Record, task: Task) -> bool:
    """Whether the row's own outputs are the values that its program gave here."""
    return all(same_literal(stored, ran) for stored, ran in zip(record.outputs, task.outputs, strict=True))
