"""Rollouts by `transformers` itself: runs any causal language model anywhere, and is what the faster engines are compared with."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest
from azr_nemo.rollout.expected import Expected
from azr_nemo.rollout.sampling import Rollout, Row
from azr_nemo.rollout.stops import Decode


class TransformersRollout(RolloutEngine):
    """A RolloutEngine over `model.generate`; see `azr_nemo.rollout.engine` for the protocol."""

    def __init__(
        self,
        hf_config: PretrainedConfig,
        dtype: torch.dtype,
        eos_ids: list[int],
        device: torch.device,
        max_batch_rows: int,
        decode: Decode | None = None,
    ):
        # from_config writes the dtype into the configuration it is given
        model = AutoModelForCausalLM.from_config(copy.deepcopy(hf_config), dtype=dtype)
        # Parameters go on requiring gradients: without them torch multiplies the prefill's last hidden states row by row, each with a
        # copy of the head (8 s instead of 0.02 s for 32 rows and a vocabulary of 49,152).
        self._model = model.to(device).eval()
        # The model's own generation settings would be merged into ours.
        self._model.generation_config = GenerationConfig()
        self._eos_ids = eos_ids
        self._device = device
        self._max_batch_rows = max_batch_rows
        self._text = decode
        self._expected = Expected(hf_config)
        self._version: int | None = None  # of the weights; None: it has none

    @torch.no_grad()
    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        """Copies each tensor over the parameter of its name. Raises UserError when names or shapes do not fit, or some never came."""
        self._version = None
        wanted = dict(self._model.named_parameters(remove_duplicate=False))
        for name, tensor in self._expected.checked(weights):
            wanted[name].copy_(tensor)
        self._version = version

    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        """Samples each request; result[i][k] is sample k of request i. Rows are decoded in batches of similar prompt lengths."""
        if self._version is None:
            raise RuntimeError("generate was called before refit")
        rollout = Rollout(requests, self._eos_ids, on_sample, self._text, self._version)
        for first in range(0, len(rollout.rows), self._max_batch_rows):
            self._decode(rollout, rollout.rows[first : first + self._max_batch_rows])
        return rollout.samples()

    def _decode(self, rollout: Rollout, rows: list[Row]) -> None:
        width = max(row.length for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        attention = torch.zeros(len(rows), width, dtype=torch.long)
        for r, row in enumerate(rows):
            ids[r, width - row.length :] = torch.tensor(row.request.prompt_ids)
            attention[r, width - row.length :] = 1
        self._model.generate(
            input_ids=ids.to(self._device),
            attention_mask=attention.to(self._device),
            generation_config=GenerationConfig(
                do_sample=False, max_new_tokens=max(row.request.max_new_tokens for row in rows), pad_token_id=0, eos_token_id=None
            ),
            logits_processor=LogitsProcessorList([_Draw(rollout, rows)]),
            stopping_criteria=StoppingCriteriaList([_Ended(rows)]),
        )


class _Draw(LogitsProcessor):
    """Draws the tokens with our own seeds and leaves `generate`, which takes the most likely token, no other choice."""

    def __init__(self, rollout: Rollout, rows: list[Row]):
        self._rollout = rollout
        self._rows = rows

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = self._rollout.draw(self._rows, scores)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class _Ended(StoppingCriteria):
    """A row is over when its sample has ended, by an end token or by its own length limit."""

    def __init__(self, rows: list[Row]):
        self._rows = rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        return torch.tensor([row.ended for row in self._rows], device=input_ids.device)
