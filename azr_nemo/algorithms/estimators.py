"""Every advantage estimator by the name that `advantage.name` gives it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from azr_nemo.algorithms.dr_grpo import dr_grpo
from azr_nemo.algorithms.grpo import grpo
from azr_nemo.algorithms.hierarchical_grpo import hierarchical_grpo
from azr_nemo.algorithms.max_rl import max_rl
from azr_nemo.algorithms.reinforce_plus_plus import reinforce_plus_plus
from azr_nemo.algorithms.rloo import rloo
from azr_nemo.algorithms.role_baseline import role_baseline
from azr_nemo.algorithms.trr_plus_plus import trr_plus_plus


@dataclass(frozen=True)
class Rewarded:
    """B rows to be judged against each other: rewards [B], mask [B, T] (1 on response tokens), groups [B] (integers, one for each role and task
    type), prompts [B] (integers, equal for the same prompt), proposers [B] (bool)."""

    rewards: Tensor
    mask: Tensor
    groups: Tensor
    prompts: Tensor
    proposers: Tensor


@dataclass(frozen=True)
class Estimator:
    """compare: advantages [B, T] from the rows, the weighting (token, sequence), and for a moving average its decay and the baselines before;
    the baselines after.

    answers, proposals: whether several answers to one task, or several proposals to one prompt, are what is compared.
    """

    compare: Callable[[Rewarded, str, float, dict[int, float]], tuple[Tensor, dict[int, float]]]
    answers: bool = False
    proposals: bool = False


ESTIMATORS = {
    "trr_plus_plus": Estimator(lambda r, weighting, _, before: (trr_plus_plus(r.rewards, r.mask, r.groups, weighting), before)),
    "reinforce_plus_plus": Estimator(lambda r, weighting, _, before: (reinforce_plus_plus(r.rewards, r.mask, weighting), before)),
    "grpo": Estimator(lambda r, _, __, before: (grpo(r.rewards, r.mask, r.prompts), before), answers=True, proposals=True),
    "dr_grpo": Estimator(lambda r, _, __, before: (dr_grpo(r.rewards, r.mask, r.prompts), before), answers=True, proposals=True),
    "rloo": Estimator(lambda r, _, __, before: (rloo(r.rewards, r.mask, r.prompts), before), answers=True, proposals=True),
    "hierarchical_grpo": Estimator(
        lambda r, _, __, before: (hierarchical_grpo(r.rewards, r.mask, r.prompts, r.groups, r.proposers), before), answers=True
    ),
    "max_rl": Estimator(lambda r, _, __, before: (max_rl(r.rewards, r.mask, r.prompts, r.groups, r.proposers), before), answers=True),
    "role_baseline": Estimator(lambda r, _, decay, before: role_baseline(r.rewards, r.mask, r.groups, before, decay)),
}
