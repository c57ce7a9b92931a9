"""Reads what Weights & Biases keeps of a run that is offline."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768  # bytes: of the file, and of LevelDB's log format that follows


def segments(run_dir: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """(run id, lines) of each time the run was begun or taken up, in order. A line's own count is `_line`."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # its service writes behind our back until it has ended
    found = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        name, lines = "", []
        for data in _records(path.read_bytes()[HEADER:]):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                name = record.run.run_id
            elif record.WhichOneof("record_type") == "history":
                values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                lines.append({**values, "_line": record.history.step.num})
        found.append((name, lines))
    return found


def _records(data: bytes) -> Iterator[bytes]:
    record, place = b"", 0
    while place + 7 <= len(data):
        left = BLOCK - (place + HEADER) % BLOCK  # the file's header is part of its first block
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])  # after a checksum; kind: whole, first, middle, last
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""
