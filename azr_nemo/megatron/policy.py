"""What a micro-batch adds to the policy loss and its metrics: ratios, importance weights, and rows that older weights have drawn."""

import torch
from torch import Tensor

from azr_nemo.algorithms.aggregation import token_weights
from azr_nemo.algorithms.finite import bounded
from azr_nemo.algorithms.importance_rejection import kept_within
from azr_nemo.algorithms.importance_sampling import importance_weights
from azr_nemo.algorithms.losses import LOSSES, Bounds, Moved
from azr_nemo.algorithms.sequence_importance import sequence_importance_weights
from azr_nemo.megatron.batches import MicroBatch, on_device
from azr_nemo.selfplay.exchange import TrainingBatch
from azr_nemo.settings.schema import OptimConfig


class PolicyScore:
    """The score of one optimizer step over all rows of `batch`.

    old_logprobs: [B, T], the trainer's before its first step, or None where they are the current ones. ages: [B] int64, updates between the
    weights that drew a row and those that learn from it. A row of age 0 moves away from the trainer's old policy; an older one from the one that
    drew it, so that the loss's own clip bounds how far it has gone, unless `optim.importance_sampling=on` weighs it back.
    """

    def __init__(self, batch: TrainingBatch, old_logprobs: Tensor | None, ages: Tensor, optim: OptimConfig):
        self.optim, self.old_logprobs = optim, old_logprobs
        self.bounds = Bounds(optim.clip_low, optim.clip_high, optim.dual_clip)
        self.advantages, self.rollout = batch.advantages.float(), batch.rollout_logprobs.float()
        self.weights = token_weights(batch.mask.float(), optim.aggregation)
        self.ages = ages[:, None].expand_as(batch.mask)
        self.older = [age for age in ages.unique().tolist() if age > 0]
        learnt = batch.mask.bool()
        fresh = float((learnt & (self.ages == 0)).sum())
        # Metrics that are means over some of the tokens only, and of how many.
        self.tokens = dict.fromkeys(("rollout_kl", "rollout_kl_k3"), fresh) if self.older else {}
        self.tokens |= {_by_age(age): float((learnt & (self.ages == age)).sum()) for age in self.older}

    @property
    def names(self) -> list[str]:
        """The metrics."""
        names = ["loss", "pg_loss", "entropy", "clip_fraction", "rollout_kl", "rollout_kl_k3", *map(_by_age, self.older)]
        if self.optim.importance_sampling != "off":
            names += ["is_weight_mean", "is_capped"]
            names += ["is_rejected"] if self.optim.importance_reject != "none" else []
        return names

    def __call__(self, rows: MicroBatch, logprobs: Tensor, entropies: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the micro-batch's tokens, and sums for the metrics."""
        optim, responses = self.optim, on_device(rows.rows, logprobs.device)

        def here(values: Tensor) -> Tensor:
            return on_device(values[rows.rows, rows.times], logprobs.device)

        old = logprobs.detach() if self.old_logprobs is None else here(self.old_logprobs)
        # What was not sampled counts as if the rollout engine agreed.
        drawn = here(self.rollout)
        drawn = torch.where(drawn.isnan(), old, drawn)
        ages = here(self.ages) if self.older else None
        began = old if ages is None or optim.importance_sampling == "on" else torch.where(ages > 0, drawn, old)
        losses, stats = LOSSES[optim.loss](Moved(logprobs, began, here(self.advantages), responses), self.bounds)
        # log p_trainer - log p_rollout, of tokens drawn from the rollout policy
        difference = bounded(old - drawn)
        sums = {
            "entropy": entropies,
            "clip_fraction": stats["clipped"],
            "rollout_kl": -difference,
            "rollout_kl_k3": difference.exp() - 1 - difference,
        }
        if ages is not None:  # the two engines are compared by rows that both have the same weights for
            sums = {name: values * (ages == 0) if name in self.tokens else values for name, values in sums.items()}
            sums |= {_by_age(age): difference.exp() * (ages == age) for age in self.older}
        if optim.importance_sampling != "off":
            importance, its_sums = self._importance(old, drawn, responses)
            sums |= its_sums
            if optim.importance_sampling == "on":
                losses = losses * importance
        weight = here(self.weights)
        policy = (losses * weight).sum()
        loss = policy - optim.entropy * (entropies * weight).sum()
        totals = {name: values.detach().sum() for name, values in sums.items()}
        return loss, {"loss": loss.detach(), "pg_loss": policy.detach(), **totals}

    def _importance(self, old: Tensor, drawn: Tensor, responses: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What each token's loss is weighed by, and its metrics."""
        optim = self.optim
        if optim.importance_level == "sequence":
            weights, capped = sequence_importance_weights(old, drawn, responses, optim.importance_cap)
        else:
            weights, capped = importance_weights(old, drawn, optim.importance_cap)
        sums = {"is_weight_mean": weights, "is_capped": capped}
        if optim.importance_reject != "none":
            kept = kept_within(old, drawn, responses, optim.importance_reject, optim.importance_low, optim.importance_high)
            weights, sums["is_rejected"] = weights * kept, 1 - kept
        return weights, sums


def _by_age(age: int) -> str:
    return f"is_weight_age{age}"
