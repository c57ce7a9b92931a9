"""What a program may use: the one way into an executor, so the one place where it is checked."""

from dataclasses import dataclass, fields

from azr_nemo.errors import UserError
from azr_nemo.settings.field import check_value
from azr_nemo.settings.schema import ExecutorConfig

ABOUT = {part.name: part.metadata["about"] for part in fields(ExecutorConfig)}


@dataclass(frozen=True)
class Limits:
    """Limits of one program. wall_s: seconds for one call of `f` (and for the program's import-time code); cpu_s likewise in CPU seconds;
    memory_mb: address space the program may add, in MiB; output_chars: longest repr that is accepted, never cut.
    The bounds are those of the settings executor.*; raises UserError for what lies outside of them."""

    wall_s: float = 5.0
    cpu_s: float = 5.0
    memory_mb: int = 512
    output_chars: int = 8000

    def __post_init__(self) -> None:
        for part in fields(self):
            check_value(part.name, getattr(self, part.name), ABOUT[part.name])


def of_timeout(seconds: float, asked: str = "--timeout") -> Limits:
    """Limits of so many seconds of wall and of CPU time. asked: how the user says it. Raises UserError."""
    try:
        return Limits(seconds, seconds)
    except UserError:
        bounds = ABOUT["wall_s"].bounds()
        raise UserError(f"{asked} {seconds:g}: expected seconds {bounds}") from None
