"""Tasks as JSON lines: our own schema, which keeps everything the buffer knows, and the two of the reference's seed files.

native      type, program, inputs, outputs, message, step, seed, references, attempts, solved, thought
reference   triplets: snippet, input, output, imports, original_snippet, composite_functions; each is a deduction and an abduction task
            code_f:   snippet, inputs, outputs, message, imports; each is an induction task

A row that is no JSON object, lacks a key or has a value of the wrong kind stops the reading with a UserError that names the line: a broken
file is a mistake of the person who gave it. A well-formed row whose program is of no use is no error: who loads it counts it as refused.
"""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from azr_nemo.errors import UserError
from azr_nemo.json_lines import objects
from azr_nemo.selfplay.buffer import StoredTask, TaskBuffer
from azr_nemo.tasks import triplets
from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed
from azr_nemo.tasks.task import TaskType

Schema = Literal["native", "reference"]

TRIPLET_KEYS = ("snippet", "input", "output")
CODE_F_KEYS = ("snippet", "inputs", "outputs", "message")
NATIVE_KEYS = ("type", "program", "inputs", "outputs")


@dataclass(frozen=True)
class Record:
    """One row of a file, whatever its schema. types: the task types it states. imports are part of the program."""

    file: Path
    line: int
    types: tuple[TaskType, ...]
    program: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    message: str = ""
    thought: str = ""


def read_jsonl(path: Path) -> Iterator[Record]:
    """The rows of a file in any of the three schemas, told apart row by row by their keys. Blank lines are skipped.

    Raises UserError naming the file, and the line where one is broken.
    """

    def broken(number: int, reason: object) -> str:
        return f"{path}, line {number}: {reason}; correct or remove the row"

    for number, row in objects(path, broken):
        try:
            yield _record(path, number, row)
        except ValueError as error:
            raise UserError(broken(number, error)) from None


def _record(path: Path, number: int, row: dict[str, Any]) -> Record:
    if "type" in row or "program" in row:
        _demand(row, NATIVE_KEYS)
        if row["type"] not in list(TaskType):
            raise ValueError(f"type is {row['type']!r}, expected {', '.join(TaskType)}")
        types: tuple[TaskType, ...] = (TaskType(row["type"]),)
        program, inputs, outputs = _text(row, "program"), _texts(row, "inputs"), _texts(row, "outputs")
    elif "inputs" in row or "outputs" in row:
        _demand(row, CODE_F_KEYS)
        types = (TaskType.INDUCTION,)
        program, inputs, outputs = _runnable(row), _texts(row, "inputs"), _texts(row, "outputs")
    else:
        _demand(row, TRIPLET_KEYS)
        types = triplets()
        program, inputs, outputs = _runnable(row), (_text(row, "input"),), (_text(row, "output"),)
    if len(inputs) != len(outputs) or not inputs:
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs: expected as many of one as of the other, and at least one")
    if len(inputs) > 1 and types[0] in triplets():
        raise ValueError(f"a {types[0]} task has one input, found {len(inputs)}")
    message = _text(row, "message") if "message" in row else ""
    thought = row.get("thought", "")
    return Record(path, number, types, program, inputs, outputs, message, thought if isinstance(thought, str) else "")


def _demand(row: dict, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        raise ValueError(f"the row lacks {', '.join(missing)} (expected the keys {', '.join(keys)})")


def _text(row: dict, key: str) -> str:
    if not isinstance(row[key], str):
        raise ValueError(f"{key} is {type(row[key]).__name__}, expected text")
    return row[key]


def _texts(row: dict, key: str) -> tuple[str, ...]:
    if not isinstance(row[key], list) or not all(isinstance(item, str) for item in row[key]):
        raise ValueError(f"{key} must be a list of texts")
    return tuple(row[key])


def _runnable(row: dict) -> str:
    """The snippet with those of its listed imports in front that it does not state itself, in the order of the list."""
    snippet = _text(row, "snippet")
    listed = [line.strip() for line in _texts(row, "imports")] if "imports" in row else []
    stated = set(import_lines(snippet)) | {line.strip() for line in snippet.splitlines()}
    missing = [line for line in dict.fromkeys(listed) if line and line not in stated]
    return "\n".join([*missing, snippet])


def import_lines(program: str) -> list[str]:
    """The program's top-level imports, one statement a line; none of a text that is no Python."""
    try:
        statements = parsed(program).body
    except PARSE_ERRORS:
        return []
    return [ast.unparse(statement) for statement in statements if isinstance(statement, ast.Import | ast.ImportFrom)]


def export_jsonl(buffer: TaskBuffer, path: Path, schema: Schema = "native", types: tuple[TaskType, ...] = ()) -> int:
    """Writes the buffer's tasks of these types (of all, when none is named), oldest first, and returns the number of rows. In the reference's
    schema a program and input that are both a deduction and an abduction task are one row; its own tools want triplets and code_f rows in two
    files: call it twice.

    Raises UserError when the file cannot be written; an earlier file of that name then stays as it was.
    """
    tasks = buffer.tasks(*types)
    return write_jsonl(path, [_native(stored) for stored in tasks] if schema == "native" else _reference(tasks))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> int:
    """Writes a row a line, aside first, and returns how many. Raises UserError when the file cannot be written; an earlier one then stays as it was."""
    aside = path.with_name(path.name + ".partial")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        aside.replace(path)
    except OSError as error:
        raise UserError(f"the task file {path} cannot be written ({error.strerror}): choose another place") from error
    finally:
        if aside.is_file():
            aside.unlink()
    return len(rows)


def _native(stored: StoredTask) -> dict[str, Any]:
    task = stored.task
    return {
        "type": task.type.value,
        "program": task.program,
        "inputs": list(task.inputs),
        "outputs": list(task.outputs),
        "message": task.message,
        "step": stored.step,
        "seed": stored.is_seed,
        "references": list(stored.references),
        "attempts": stored.attempts,
        "solved": stored.solved,
        "thought": stored.thought,
    }


def _reference(tasks: list[StoredTask]) -> list[dict[str, Any]]:
    rows: dict[tuple, dict[str, Any]] = {}
    for task in (stored.task for stored in tasks):
        row: dict[str, Any] = {"snippet": task.program}
        if task.type in triplets():
            row |= {"input": task.input, "output": task.output, "imports": import_lines(task.program)}
            row |= {"original_snippet": task.program, "composite_functions": []}
        else:
            row |= {"inputs": list(task.inputs), "outputs": list(task.outputs), "message": task.message}
            row["imports"] = import_lines(task.program)
        rows.setdefault((task.type in triplets(), task.program, task.inputs), row)
    return list(rows.values())
