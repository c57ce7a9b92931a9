"""The names of what can come of a completion, and the classes that they are grouped in when one looks for them."""

from azr_nemo.rewards.answer import MALFORMED
from azr_nemo.sandbox.executor import Status

CLASSES: dict[str, tuple[str, ...]] = {
    "ok": ("right", "solve_rate"),  # a right answer; a proposal that became a new task, which says its solve rate
    "wrong": ("wrong_value",),
    "malformed": tuple(sorted(MALFORMED)),
    "failed": tuple(status.value for status in Status if status not in (Status.OK, Status.SYNTAX)),  # it gave no value that can be compared
    "refused": (
        "banned_name", "composite_clash", "composite_name", "composite_redefined", "composite_statement", "composite_uncalled",
        "duplicate", "generator", "import", "message_carries_program", "no_arguments", "no_entry", "no_parameter", "no_return",
        "not_a_value", "not_one_call", "prompt_too_long", "repeated_input", "syntax", "too_deep", "too_long",
    ),  # before anything ran, or as it is known already
}  # fmt: skip
NAMES = tuple(name for names in CLASSES.values() for name in names)


def matches(outcome: str, status: str) -> bool:
    """Whether an outcome is the one of this name, or of this class. `solve_rate=0.25` has the name solve_rate."""
    name = outcome.partition("=")[0]
    return status in (outcome, name) or name in CLASSES.get(status, ())
