"""Rows of programs through an executor: what `azr-nemo sandbox run FILE.jsonl` prints."""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.json_lines import objects
from azr_nemo.sandbox.executor import Executor, Limits, Outcome, Request, of_timeout

IN_FLIGHT = 256  # rows handed to the executor whose outcomes have not been asked for


def read_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, one at a time: objects with `program` (text) and `inputs` (list of argument texts). Empty lines are skipped.

    Raises UserError naming the file, and the line where one is broken.
    """

    def broken(number: int, reason: str) -> str:
        return f'{path}, line {number}: {reason}; expected {{"program": "...", "inputs": ["..."]}}'

    for number, row in objects(path, broken):
        inputs = row.get("inputs")
        if not isinstance(row.get("program"), str):
            raise UserError(broken(number, 'no text under "program"'))
        if not isinstance(inputs, list) or not all(isinstance(text, str) for text in inputs):
            raise UserError(broken(number, 'no list of texts under "inputs"'))
        yield row


def run_rows(
    rows: Iterable[dict[str, Any]], executor: Executor, deterministic: bool = False, limits: Limits | None = None
) -> Iterator[dict[str, Any]]:
    """One `{"outcomes": [{"status", "value", "error", "cpu_s", "wall_s"}, ...]}` per row, in order, while later rows run: at most IN_FLIGHT are held.

    rows: as `read_rows` yields them. Raises ExecutorUnavailable when the sandbox dies, and whatever `rows` raises, after the rows before it.
    """
    pending: deque[Future[list[Outcome]]] = deque()
    broken: Exception | None = None
    source = iter(rows)
    try:
        while True:
            try:
                row = next(source)
            except StopIteration:
                break
            except UserError as error:
                broken = error
                break
            pending.append(executor.submit(Request(row["program"], tuple(row["inputs"]), limits, deterministic)))
            while len(pending) >= IN_FLIGHT or (pending and pending[0].done()):
                yield _printed(pending.popleft())
        while pending:
            yield _printed(pending.popleft())
    finally:
        for future in pending:
            future.cancel()
    if broken is not None:
        raise broken


def run_file(path: str | Path, executor: Executor, deterministic: bool = False, timeout_s: float | None = None) -> Iterator[str]:
    """The JSON lines that `azr-nemo sandbox run` prints, as they come. timeout_s: seconds of wall and CPU time of one call, in place of the executor's."""
    limits = None if timeout_s is None else of_timeout(timeout_s)
    for row in run_rows(read_rows(path), executor, deterministic, limits):
        yield json.dumps(row)


def _printed(future: Future[list[Outcome]]) -> dict[str, Any]:
    return {
        "outcomes": [
            {
                "status": str(outcome.status),
                "value": outcome.value,
                "error": outcome.error,
                "cpu_s": outcome.cpu_s,
                "wall_s": outcome.wall_s,
            }
            for outcome in future.result()
        ]
    }
