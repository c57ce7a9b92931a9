"""What a program may use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one program. wall_s: seconds for one call of `f` (and for the program's import-time code); cpu_s likewise in CPU seconds;
    memory_mb: address space the program may add, in MiB; output_chars: longest repr that is accepted, never cut."""

    wall_s: float = 5.0
    cpu_s: float = 5.0
    memory_mb: int = 512
    output_chars: int = 8000
