"""A whole script with standard streams, as Sandbox-Fusion's clients send it. Self-play grades calls of `f` (`executor.Request`), never this."""

from dataclasses import dataclass, field
from enum import StrEnum

from azr_nemo.sandbox.limits import Limits


class ScriptStatus(StrEnum):
    FINISHED = "finished"
    TIMEOUT = "timeout"
    FLOODED = "flooded"  # a stream was longer than allowed; the script was ended


@dataclass(frozen=True)
class Script:
    """Python source and what it reads on its standard input. limits: `wall_s`, `cpu_s` and `memory_mb` hold for the whole script; stream_bytes: longest
    standard output or error."""

    source: str
    stdin: str = ""
    limits: Limits = field(default_factory=Limits)
    stream_bytes: int = 1 << 20


@dataclass(frozen=True)
class ScriptResult:
    """How a script ended. return_code: below zero is a signal's number, None after a timeout. The streams hold what came before the end."""

    status: ScriptStatus
    return_code: int | None
    stdout: str
    stderr: str
    cpu_s: float
    wall_s: float
