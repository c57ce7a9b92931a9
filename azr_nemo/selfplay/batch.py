"""From the step's attempts to the training batch: rewards become advantages, rows that teach nothing may be left out."""

from dataclasses import dataclass

import torch

from azr_nemo.algorithms.estimators import ESTIMATORS, Rewarded
from azr_nemo.algorithms.raft import lighter_failures
from azr_nemo.algorithms.w_reinforce import lighter_successes
from azr_nemo.selfplay.exchange import Attempt, Completion, TrainingBatch, groups
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.task import Role


@dataclass(frozen=True)
class Row:
    """What an update takes of an attempt. group: an index into groups(). advantage: of each token of the response."""

    group: int
    completion: Completion
    reward: float
    advantage: float

    @classmethod
    def of(cls, attempt: Attempt) -> "Row":
        """The row of an attempt that has its advantage."""
        return cls(_group(attempt), attempt.completion, attempt.reward, attempt.advantage or 0.0)


def in_group_order(attempts: list[Attempt]) -> list[Attempt]:
    """The attempts in the order of their groups' ids; within a group as they came."""
    return sorted(attempts, key=_group)


def give_advantages(rows: list[Attempt], config: RunConfig, baselines: dict[int, float]) -> dict[int, float]:
    """Compares the rows' rewards and writes each one's advantage, which holds for all tokens of its response. Truncated responses are rows like
    any other. Returns the moving averages after them (of `advantage.name=role_baseline` alone)."""
    settings = config.advantage
    rewards = torch.tensor([row.reward for row in rows])
    groups = torch.tensor([_group(row) for row in rows])
    proposers = torch.tensor([row.prompt.role is Role.PROPOSE for row in rows])
    rewarded = Rewarded(rewards, _mask([row.completion for row in rows]), groups, _prompts(rows), proposers)
    by_token, baselines = ESTIMATORS[settings.name].compare(rewarded, settings.weighting, settings.decay, baselines)
    advantages = lighter_successes(by_token[:, 0], rewarded.prompts, proposers, settings.easy_success_weight)
    advantages = lighter_failures(advantages, proposers, settings.failure_weight)
    advantages = torch.where(proposers, advantages * config.selfplay.proposer_weight, advantages)
    for row, advantage in zip(rows, advantages.tolist(), strict=True):
        row.advantage = advantage
    return baselines


def training_batch(rows: list[Row], config: RunConfig) -> TrainingBatch:
    """The rows of one update, as they come. With `advantage.filter_zero_variance` rows without an advantage are left out, unless that
    would be all of them."""
    if config.advantage.filter_zero_variance:
        rows = [row for row in rows if row.advantage] or rows
    completions = [row.completion for row in rows]
    mask = _mask(completions)
    logprobs = torch.zeros_like(mask)
    for i, completion in enumerate(completions):
        logprobs[i, : len(completion.logprobs)] = torch.tensor(completion.logprobs)
    return TrainingBatch(
        prompt_ids=[completion.prompt_ids for completion in completions],
        response_ids=[completion.response_ids for completion in completions],
        rollout_logprobs=logprobs,
        mask=mask,
        advantages=torch.tensor([row.advantage for row in rows])[:, None] * mask,
        rewards=torch.tensor([row.reward for row in rows]),
        groups=torch.tensor([row.group for row in rows]),
        versions=torch.tensor([completion.weight_version for completion in completions]),
    )


def _mask(completions: list[Completion]) -> torch.Tensor:
    """1 on the tokens of each response, [rows, longest]."""
    lengths = torch.tensor([len(completion.response_ids) for completion in completions])
    return (torch.arange(int(lengths.max()))[None] < lengths[:, None]).float()


def _group(attempt: Attempt) -> int:
    return groups().index((attempt.prompt.role, attempt.prompt.type))


def _prompts(rows: list[Attempt]) -> torch.Tensor:
    """An id for each different prompt."""
    ids: dict[tuple[int, str], int] = {}
    return torch.tensor([ids.setdefault((_group(row), row.prompt.text.full), len(ids)) for row in rows])
