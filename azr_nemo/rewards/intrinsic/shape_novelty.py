"""How seldom a program of this shape was made before, in the manner of count-based exploration (arXiv 1606.01868): what made many tasks earns less.

A proposer that is paid for learnable tasks alone writes the motif that paid again and again, with other names and numbers; as texts these are all new.
R-Diverse (arXiv 2602.13103) remembers skills for the same reason. With `reward.intrinsic_combine=multiply` a learnable task of n known ones of its
shape earns 4p(1 - p) / sqrt(1 + n).
"""

import math
from collections.abc import Sequence

from azr_nemo.rewards.intrinsic.component import History
from azr_nemo.tasks.program_shape import shape
from azr_nemo.tasks.task import Task


def shape_novelty(task: Task, references: Sequence[Task], history: History) -> float:
    """1 / sqrt(1 + known tasks of its type whose program has the same shape), within (0, 1]."""
    return 1 / math.sqrt(1 + history.shapes(task.type)[shape(task.program)])
