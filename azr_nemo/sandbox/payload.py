"""The script that carries `jailed` to a server of scripts, and the reading of what it prints there."""

import base64
import binascii
import hashlib
import json
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from azr_nemo.sandbox.executor import ExecutorUnavailable, Outcome, Status
from azr_nemo.sandbox.local.jailed.remote import MARK
from azr_nemo.sandbox.local.seccomp import cell_filter

JAILED = Path(__file__).parent / "local" / "jailed"
MODULES = ("literal", "call", "child", "landlock", "cell", "canonical", "frames", "supervise", "remote")  # each after those it imports
LARGEST = 64 << 20  # bytes an answer may unpack to
ARCHITECTURES = ("x86_64", "aarch64")

SCRIPT = """import base64, json, sys, types, zlib
sources = json.loads(zlib.decompress(base64.b64decode({packed!r})))
package = sys.modules["jailed"] = types.ModuleType("jailed")
package.__path__ = []
for name, source in sources.items():
    module = sys.modules["jailed." + name] = types.ModuleType("jailed." + name)
    module.__package__ = "jailed"
    exec(compile(source, name + ".py", "exec"), module.__dict__)
    setattr(package, name, module)
package.remote.main()
"""


class Unreadable(Exception):
    """An output that is not what the script prints: cut, mixed up or somebody else's."""


@cache
def script() -> str:
    """The source text that a server is sent, the same for every request: ASCII, about 20 kB."""
    sources = {name: (JAILED / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    return SCRIPT.format(packed=base64.b64encode(zlib.compress(json.dumps(sources).encode(), 9)).decode())


@cache
def filters() -> dict[str, str]:
    """The system-call filter of a cell in hexadecimal, by machine; empty where libseccomp is missing here."""
    try:
        return {machine: cell_filter(machine).hex() for machine in ARCHITECTURES}
    except ExecutorUnavailable:
        return {}


def read_answer(stdout: str) -> dict[str, Any]:
    """What the script printed. Raises Unreadable when its length or hash are not those it was sent with."""
    for line in stdout.splitlines():
        words = line.split(" ")
        if len(words) == 4 and words[0] == MARK:
            _, length, digest, payload = words
            data = payload.encode("ascii", "replace")
            if str(len(data)) != length or hashlib.sha256(data).hexdigest() != digest:
                raise Unreadable("the answer was cut on its way")
            try:
                unpacker = zlib.decompressobj()
                answer = json.loads(unpacker.decompress(base64.b64decode(data, validate=True), LARGEST).decode("utf-8", "surrogatepass"))
            except (binascii.Error, zlib.error, ValueError, RecursionError):
                raise Unreadable("the answer cannot be unpacked") from None
            if isinstance(answer, dict):
                return answer
    raise Unreadable("no answer of the supervisor's among the output")


def read_seed(answer: dict[str, Any]) -> int:
    """The hash of a known text in the interpreter that answered: it differs between hash seeds."""
    seed = answer.get("hash")
    if not isinstance(seed, int):
        raise Unreadable("no hash in the answer")
    return seed


def read_outcomes(rows: Any, count: int) -> list[Outcome]:
    """`count` outcomes from rows [status, value, error, cpu_s, wall_s]. Raises Unreadable unless each is one that an executor gives."""
    if not isinstance(rows, list) or len(rows) != count:
        raise Unreadable(f"expected {count} outcomes")
    return [_outcome(row) for row in rows]


def _outcome(row: Any) -> Outcome:
    if not isinstance(row, list) or len(row) != 5:
        raise Unreadable("an outcome has five parts")
    status, value, error, cpu_s, wall_s = row
    if status not in list(Status) or not all(isinstance(seconds, int | float) and 0 <= seconds < math.inf for seconds in (cpu_s, wall_s)):
        raise Unreadable("an outcome has a known status and seconds")
    if isinstance(value, str) != (status == Status.OK) or not isinstance(value, str | None) or not isinstance(error, str | None):
        raise Unreadable("an outcome has a value when it is ok, and only then")
    return Outcome(Status(status), value, error, float(cpu_s), float(wall_s))
