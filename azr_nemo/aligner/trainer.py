"""NeMo-Aligner's PPOTrainer with self-play in the place of a dataset of prompts, and TRR++ in the place of a critic's advantages.

`fit`, `run_training` and `save` are PPOTrainer's own. In a rollout phase rank 0, which holds the executor and the buffer, drives the self-play
step; every batch of prompts that the step yields is broadcast, and each data-parallel rank generates its share.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from nemo_aligner.algorithms.ppo import PPORolloutBatch, PPOTrainer
from nemo_aligner.utils import parallel_state
from nemo_aligner.utils.ppo_utils import create_mask
from torch import Tensor

from azr_nemo import progress
from azr_nemo.algorithms.trr_plus_plus import trr_plus_plus
from azr_nemo.aligner.collectives import broadcast, gather_columns
from azr_nemo.aligner.dataset import PromptSource
from azr_nemo.aligner.gpt_model import ppo_config
from azr_nemo.aligner.nemo_checkpoint import CheckpointCallback
from azr_nemo.aligner.rewards import SandboxRewards
from azr_nemo.aligner.sampler_ranks import Sampler
from azr_nemo.aligner.selfplay import SelfPlayRun, Silent
from azr_nemo.errors import UserError
from azr_nemo.megatron.finite_weights import Diverged, require_growth, way_back
from azr_nemo.selfplay.exchange import TrainingBatch, groups
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.task import Role


def global_trr_plus_plus(rewards: Tensor, mask: Tensor, groups: Tensor, weighting: str) -> Tensor:
    """Advantages [B, S] of this rank's rows, from its rewards [B], mask [B, S] and groups [B]. Collective over the data-parallel ranks, which
    all have B rows. A row without response tokens takes no part.

    What a group's statistics depend on is two numbers a row, its reward and its token count, so those are gathered and every rank computes
    the baselines that one rank would, in float64.
    """
    rank = parallel_state.get_data_parallel_rank()
    columns = torch.stack([rewards.double(), mask.sum(1).double(), groups.double()], dim=1)
    everyone = torch.cat(gather_columns(columns, parallel_state.get_data_parallel_group()))
    reward, tokens, group = everyone.unbind(1)
    # A row's tokens all have its advantage: one column of as many tokens stands for them.
    scale = trr_plus_plus(reward, tokens[:, None], group.long(), weighting) / tokens.clamp(min=1)[:, None]
    own = scale[rank * len(rewards) : (rank + 1) * len(rewards)]
    return own.to(rewards.dtype) * mask


PADDING = -1  # of a row that only fills the batch: its group, and its place among the verdicts


class SelfPlayPPOTrainer(PPOTrainer):
    """selfplay: rank 0's executor, buffer and logs; None on the other ranks. source: makes the prompts' loaders. model, optimizer, scheduler,
    callback, run_timer: PPOTrainer's own."""

    def __init__(
        self,
        config: RunConfig,
        sampler: Sampler,
        selfplay: SelfPlayRun | None,
        *,
        source: PromptSource,
        model: Any,
        optimizer: Any,
        scheduler: Any,
        callback: CheckpointCallback,
        run_timer: Any = None,
    ):
        super().__init__(
            cfg=ppo_config(config),
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            train_dataloader_builder=source,
            val_dataloader_builder=source,
            collate_fn=None,
            rm_critic=SandboxRewards(),
            batch_iterator_cls=None,
            logger=selfplay or Silent(),
            ckpt_callback=callback,
            run_timer=run_timer,
        )
        self.config, self.sampler, self.selfplay = config, sampler, selfplay

    @torch.no_grad()
    def generate_rollouts(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, float]]:
        """One self-play step: this rank's rows for the update, metrics, and the seconds of its phases."""
        number = self.step + 1

        def work() -> dict[str, Any]:
            assert self.selfplay is not None
            result = self.selfplay.step(number)
            return {"rows": as_rows(result.batch), "metrics": result.metrics}

        said = self._sampling(work)
        rollout_batch = self._local_batch(said["rows"])
        with self.timer("logprobs"):
            rollout_batch["logprobs"] = self.model.get_inference_log_probs(rollout_batch["response_tokens"].cuda())
        rewards, values = self.rm_critic.infer_rm_critic(rollout_batch)
        rollout_batch.update({"rewards": rewards, "values": values})
        data, metrics = self.generate_ppo_data(rollout_batch)
        with self.timer("finish_inference"):
            self.model.finish_inference()
        self.consumed_samples += self.cfg.model_gbs
        metrics |= said["metrics"] | {
            "rollout_size": self.cfg.model_gbs,  # PPOTrainer counts its consumed samples by it
            "consumed_samples": self.consumed_samples,
            "table": {"prompt": "", "response": "", "reward": 0.0},  # the run's rollouts/ has them
        }
        return data, metrics, self.timer.consume_durations()

    def generate_ppo_data(self, rollout_batch: PPORolloutBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
        """TRR++ over the six (role, task type) groups of the whole batch, in the place of GAE over a critic's values."""
        mask = create_mask(rollout_batch["values"], rollout_batch["prompt_lengths"], rollout_batch["response_lengths"])
        ids = rollout_batch["group"]
        weighting = self.config.advantage.weighting
        advantages = global_trr_plus_plus(rollout_batch["rewards"].to(mask), mask, ids.to(mask.device), weighting)
        proposers = torch.tensor([role is Role.PROPOSE for role, _ in groups()])[ids.clamp(min=0)].to(mask.device)[:, None]
        advantages = torch.where(proposers, advantages * self.config.selfplay.proposer_weight, advantages)
        data = {
            "mask": mask,
            "advantages": advantages,
            "prev_logprobs": rollout_batch["logprobs"],
            "response_tokens": rollout_batch["response_tokens"],
        }
        sums = torch.stack([mask.sum(), (advantages * mask).sum(), (advantages**2 * mask).sum()]).double()
        dist.all_reduce(sums, group=parallel_state.get_data_parallel_group())
        _, first, second = (sums / sums[0].clamp(min=1)).tolist()
        return data, {"advantages_mean": first, "advantages_rms": second**0.5}

    def run_training(self, dataloader_iter: Any) -> Any:
        """PPOTrainer's, timed. Raises UserError, on every rank and before anything is saved, when it leaves weights that are not finite."""
        if self.selfplay is None:
            trained = super().run_training(dataloader_iter)
        else:
            driver = self.selfplay.driver
            with driver.clock.phase("update"), driver.console.phase("update") as phase, progress.heard_by(phase):
                trained = super().run_training(dataloader_iter)
        try:
            require_growth(self.model.growth(), "optim.lr", self.config.optim.lr)
        except Diverged as error:
            raise UserError(way_back(error, self.step + 1, self.ckpt_callback.checkpoints.latest())) from error
        return trained

    @torch.no_grad()
    def run_validation(self) -> dict[str, Any]:
        """Held-out tasks and benchmarks, in the place of a validation set."""

        def work() -> dict[str, Any]:
            assert self.selfplay is not None
            return {"metrics": self.selfplay.evaluate(self.step)}

        said = self._sampling(work)
        self.model.finish_inference()
        return said["metrics"] | {"table": {"prompt": "", "response": "", "reward": 0.0}}

    def seed(self) -> None:
        """Before the first step: rank 0 asks the model for seeds, through all ranks."""

        def work() -> dict[str, Any]:
            assert self.selfplay is not None
            self.selfplay.seed()
            return {}

        with torch.no_grad():
            self._sampling(work)
            self.model.finish_inference()
        self.timer.consume_durations()

    def _sampling(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Rank 0 does `work`, which samples through every rank, and says what came of it; the others sample until then. All get what it says.

        Raises on rank 0 what work raises, on the others UserError.
        """
        with self.timer("prepare_for_inference"):  # the refit, where TensorRT-LLM samples
            self.model.prepare_for_inference()
        with self.timer("generate"):
            if self.selfplay is None:
                while (order := broadcast())["do"] == "sample":
                    self.sampler.sample(order, lambda index, ids, finished: None)
                if order["do"] == "fail":
                    raise UserError(f"rank 0 ended: {order['sentence']}")
                return order
            try:
                return broadcast({"do": "end", **work()})
            except BaseException as error:
                broadcast({"do": "fail", "sentence": str(error) or type(error).__name__})
                raise

    def _local_batch(self, rows: dict[str, Any]) -> PPORolloutBatch:
        """This data-parallel rank's part of the rows that rank 0 has broadcast, on the device."""
        self.rm_critic.verdicts = rows["rewards"]
        batch = global_batch(rows, self.cfg.model_gbs, self.model.tokenizer.eos_id)
        own = batch.chunk(parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size(), seed=self.step)
        return type(own)({name: tensor.to(torch.cuda.current_device()) for name, tensor in own.items()})


def as_rows(batch: TrainingBatch) -> dict[str, Any]:
    """What the other ranks need of a training batch, as JSON holds it."""
    return {
        "prompts": batch.prompt_ids,
        "responses": batch.response_ids,
        "groups": batch.groups.tolist(),
        "rewards": batch.rewards.tolist(),
    }


def global_batch(rows: dict[str, Any], size: int, pad: int) -> PPORolloutBatch:
    """All rows of a step as NeMo-Aligner has them: response_tokens [size, S] are prompt and response, right-padded; prompt_lengths,
    response_lengths (prompt included), group and row [size]. Filled up to `size` rows by ones without a response token, whose group and row are
    PADDING. Raises ValueError when there are more rows."""
    joined = [[*prompt, *response] for prompt, response in zip(rows["prompts"], rows["responses"], strict=True)]
    missing = size - len(joined)
    if missing < 0:
        raise ValueError(f"the step has {len(joined)} rows, more than the {size} of the global batch")
    tokens = torch.full((size, max(map(len, joined))), pad, dtype=torch.int64)
    for place, ids in enumerate(joined):
        tokens[place, : len(ids)] = torch.tensor(ids)
    prompts = [len(prompt) for prompt in rows["prompts"]]
    return PPORolloutBatch(
        {
            "response_tokens": tokens,
            "prompt_lengths": torch.tensor(prompts + [1] * missing),
            "response_lengths": torch.tensor([len(ids) for ids in joined] + [1] * missing),
            "group": torch.tensor([*rows["groups"], *[PADDING] * missing]),
            "row": torch.tensor([*range(len(joined)), *[PADDING] * missing]),
        }
    )
