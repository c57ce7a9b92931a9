"""Which programs are kept for held-out evaluation: a property of a program's normalised source alone, so that nothing else need be remembered."""

from azr_nemo.tasks.program import program_hash

CLASSES = 8  # one program in eight is held out


def is_held_out(program: str) -> bool:
    """Whether the program is one that training must not see while held-out accuracy is measured (`eval.items`). Comments, docstrings and layout
    make no difference; names do."""
    return int(program_hash(program)[:8], 16) % CLASSES == 0
