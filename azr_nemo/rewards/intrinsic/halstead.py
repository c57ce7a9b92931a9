"""How much there is to a program: Halstead's effort and volume and McCabe's cyclomatic complexity, by radon, weighted as in the published code."""

from collections.abc import Sequence

from azr_nemo.rewards.intrinsic.component import History
from azr_nemo.tasks.parsing import PARSE_ERRORS
from azr_nemo.tasks.task import Task


def halstead(task: Task, references: Sequence[Task], history: History) -> float:
    """0.5 min(effort / 10^4, 1) + 0.3 min(cyclomatic / 10, 1) + 0.2 min(volume / 500, 1), within [0, 1]; cyclomatic is the most complex
    function's. 0 for a program nested too deeply to be measured."""
    from radon.complexity import cc_visit
    from radon.metrics import h_visit

    try:
        total, blocks = h_visit(task.program).total, cc_visit(task.program)
    except PARSE_ERRORS:
        return 0.0
    cyclomatic = max((block.complexity for block in blocks), default=0)
    return 0.5 * min(total.effort / 1e4, 1) + 0.3 * min(cyclomatic / 10, 1) + 0.2 * min(total.volume / 500, 1)
