"""What stands where NeMo-Aligner asks a reward model and a critic over HTTP: the sandbox's verdicts, which are known when a step is done.

There is no critic: Absolute Zero's baselines are those of TRR++.
"""

from typing import Any

import torch
from torch import Tensor


class Saved:
    """NeMo-Aligner's FutureResult of something that is already there."""

    def result(self) -> None:
        return None


class SandboxRewards:
    """Duck-typed as PPOTrainer's rm_critic. `verdicts` is set on every rank by what rank 0 broadcasts, so model-parallel ranks agree."""

    def __init__(self) -> None:
        self.verdicts: list[float] = []

    def infer_rm_critic(self, rollout_batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Rewards [B] of the rows that rollout_batch["row"] names, and values [B, S-1], which are zeros. A row below 0 is padding: reward 0."""
        rows = rollout_batch["row"]
        device = rollout_batch["response_tokens"].device
        rewards = torch.tensor([self.verdicts[row] if row >= 0 else 0.0 for row in rows.tolist()], dtype=torch.float32, device=device)
        batch, length = rollout_batch["response_tokens"].shape
        return rewards, torch.zeros(batch, length - 1, device=device)

    def train(self, ppo_rollout_data: Any) -> None:
        """No critic learns."""

    def save(self) -> Saved:
        """No critic is saved."""
        return Saved()
