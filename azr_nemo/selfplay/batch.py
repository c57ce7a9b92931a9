"""From the step's attempts to the training batch: rewards become TRR++ advantages over the six (role, task type) groups."""

import torch

from azr_nemo.algorithms.trr_plus_plus import trr_plus_plus
from azr_nemo.config import RunConfig
from azr_nemo.selfplay.exchange import GROUPS, TrainingBatch
from azr_nemo.selfplay.rows import Attempt
from azr_nemo.tasks.task import Role


def in_group_order(attempts: list[Attempt]) -> list[Attempt]:
    """The attempts in the order of their groups' ids; within a group as they came."""
    return sorted(attempts, key=_group)


def training_batch(rows: list[Attempt], config: RunConfig) -> TrainingBatch:
    """All rows of one optimizer step, as they come. Truncated responses are rows like any other."""
    lengths = torch.tensor([len(row.completion.response_ids) for row in rows])
    mask = (torch.arange(int(lengths.max()))[None] < lengths[:, None]).float()
    logprobs = torch.zeros_like(mask)
    for i, row in enumerate(rows):
        logprobs[i, : lengths[i]] = torch.tensor(row.completion.logprobs)
    groups = torch.tensor([_group(row) for row in rows])
    rewards = torch.tensor([row.reward for row in rows])
    advantages = trr_plus_plus(rewards, mask, groups, weighting=config.advantage.weighting)
    proposers = torch.tensor([row.prompt.role is Role.PROPOSE for row in rows])
    advantages = torch.where(proposers[:, None], advantages * config.selfplay.proposer_weight, advantages)
    return TrainingBatch(
        prompt_ids=[row.completion.prompt_ids for row in rows],
        response_ids=[row.completion.response_ids for row in rows],
        rollout_logprobs=logprobs,
        mask=mask,
        advantages=advantages,
        rewards=rewards,
        groups=groups,
    )


def _group(attempt: Attempt) -> int:
    return GROUPS.index((attempt.prompt.role, attempt.prompt.type))
