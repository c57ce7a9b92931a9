"""The proposer's reward: a task is worth most when the solver can solve it, but not always (Absolute Zero, eq. 4)."""

from azr_nemo.settings.schema import RewardConfig


def learnability(solve_rate: float, config: RewardConfig) -> float:
    """Reward of a valid task from its mean solve rate p in [0, 1].

    0 < p < 1: `1 - p` as in the paper, or `4 p (1 - p)`, which is highest at one half. p at 0 or 1: `reward.unlearnable`, which is 0 in the
    paper's text and -0.5 in its published runs.
    """
    if not 0 <= solve_rate <= 1:
        raise ValueError(f"a solve rate lies between 0 and 1, not {solve_rate}")
    if solve_rate in (0, 1):
        return config.unlearnable
    return 1 - solve_rate if config.learnability == "one_minus_p" else 4 * solve_rate * (1 - solve_rate)
