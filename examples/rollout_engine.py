"""A rollout engine of one's own: `transformers` without a cache, a row at a time. Slow, and too simple to be wrong: one to compare others with.

azr-nemo train extensions='[examples/rollout_engine.py]' rollout=plain ...
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from azr_nemo.rollout import ROLLOUTS, Setup
from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest
from azr_nemo.rollout.sampling import Rollout


class PlainRollout(RolloutEngine):
    """Reads the whole text again for every token."""

    def __init__(self, setup: Setup):
        self.setup, self.version = setup, 0
        self.model = AutoModelForCausalLM.from_config(setup.hf_config, dtype=setup.dtype).to(setup.device).eval()

    @torch.no_grad()
    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        for name, tensor in weights:  # under Hugging Face names, one full tensor at a time
            self.model.get_parameter(name).copy_(tensor)
        self.model.tie_weights()
        self.version = version

    @torch.no_grad()
    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        rollout = Rollout(requests, self.setup.eos_ids, on_sample, self.setup.decode, self.version)
        for row in rollout.rows:
            while not row.ended:
                ids = torch.tensor([[*row.request.prompt_ids, *row.tokens]], device=self.setup.device)
                rollout.draw([row], self.model(ids).logits[:, -1])  # one token, by the request's own seed
        return rollout.samples()


ROLLOUTS["plain"] = PlainRollout
