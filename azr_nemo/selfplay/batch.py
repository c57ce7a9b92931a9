"""From the step's attempts to the training batch: rewards become advantages, rows that teach nothing may be left out."""

import torch

from azr_nemo.algorithms.estimators import ESTIMATORS, Rewarded
from azr_nemo.config import RunConfig
from azr_nemo.selfplay.exchange import GROUPS, TrainingBatch
from azr_nemo.selfplay.rows import Attempt
from azr_nemo.tasks.task import Role


def in_group_order(attempts: list[Attempt]) -> list[Attempt]:
    """The attempts in the order of their groups' ids; within a group as they came."""
    return sorted(attempts, key=_group)


def training_batch(rows: list[Attempt], config: RunConfig, baselines: dict[int, float]) -> tuple[TrainingBatch, dict[int, float]]:
    """The rows of one update, as they come, and the moving averages after them (of `advantage.name=role_baseline` alone).

    Writes each row's advantage into its attempt. Truncated responses are rows like any other. With `advantage.filter_zero_variance` rows without
    an advantage are left out, unless that would be all of them.
    """
    lengths = torch.tensor([len(row.completion.response_ids) for row in rows])
    mask = (torch.arange(int(lengths.max()))[None] < lengths[:, None]).float()
    rewards = torch.tensor([row.reward for row in rows])
    groups = torch.tensor([_group(row) for row in rows])
    proposers = torch.tensor([row.prompt.role is Role.PROPOSE for row in rows])
    settings = config.advantage
    judged = Rewarded(rewards, mask, groups, _prompts(rows), proposers)
    advantages, baselines = ESTIMATORS[settings.name].compare(judged, settings.weighting, settings.decay, baselines)
    advantages = torch.where(proposers[:, None], advantages * config.selfplay.proposer_weight, advantages)
    for row, advantage in zip(rows, (advantages.sum(1) / lengths.clamp(min=1)).tolist(), strict=True):
        row.advantage = advantage
    kept = [i for i, row in enumerate(rows) if row.advantage] if settings.filter_zero_variance else []
    kept = kept or list(range(len(rows)))
    longest = int(lengths[kept].max())
    logprobs = torch.zeros(len(kept), longest)
    for place, i in enumerate(kept):
        logprobs[place, : lengths[i]] = torch.tensor(rows[i].completion.logprobs)
    batch = TrainingBatch(
        prompt_ids=[rows[i].completion.prompt_ids for i in kept],
        response_ids=[rows[i].completion.response_ids for i in kept],
        rollout_logprobs=logprobs,
        mask=mask[kept, :longest],
        advantages=advantages[kept, :longest],
        rewards=rewards[kept],
        groups=groups[kept],
    )
    return batch, baselines


def _group(attempt: Attempt) -> int:
    return GROUPS.index((attempt.prompt.role, attempt.prompt.type))


def _prompts(rows: list[Attempt]) -> torch.Tensor:
    """An id for each different prompt."""
    ids: dict[tuple[int, str], int] = {}
    return torch.tensor([ids.setdefault((_group(row), row.prompt.text.full), len(ids)) for row in rows])
