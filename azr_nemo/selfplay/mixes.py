"""What the solver's tasks of a step are mixed of: one row for each value of `selfplay.solve_from`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mix:
    """share: of the batch that comes from tasks of certain steps, drawn uniformly among them. oldest, newest: which steps, counted back from
    this one; None: `selfplay.solve_window` of them. The rest, and what these steps lack, is drawn from the whole buffer by `others`."""

    share: float
    newest: int = 0
    oldest: int | None = 0
    others: str = "uniform"

    def steps(self, step: int, window: int) -> range:
        """The steps whose tasks come first, ascending. Seeds are of step 0."""
        oldest = window - 1 if self.oldest is None else self.oldest
        return range(max(step - oldest, 0), step - self.newest + 1)


MIXES = {
    "current": Mix(1.0),
    "previous": Mix(1.0, newest=1, oldest=1),  # the published max_new, which draws before anything is proposed
    "recent": Mix(1.0, oldest=None),
    "mixed": Mix(0.5),
    "previous_mixed": Mix(0.5, newest=1, oldest=1),  # its half_new
    "buffer": Mix(0.0),  # its uniform_total
    "newer": Mix(0.0, others="recent"),  # its step
    "learnable": Mix(0.0, others="learnable"),  # solved about half the time so far, or not tried yet
}
