"""The solver's reward: right, wrong, or not readable at all."""

from azr_nemo.settings.schema import RewardConfig
from azr_nemo.tasks.task import Verdict

MALFORMED = frozenset({"format", "truncated"})


def solver_reward(verdict: Verdict, config: RewardConfig) -> float:
    """1 for a right answer, -0.5 for a wrong one, -1 for a badly formatted one (the defaults; Absolute Zero, eq. 6).

    A partly right induction answer (reward.induction=fraction) earns its share of `right`.
    """
    if verdict.reason in MALFORMED:
        return config.malformed
    return config.right * verdict.score if verdict.score > 0 else config.wrong
