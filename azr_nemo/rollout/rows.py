"""The samples that are decoded together: each draws its next token from its own seed, and is handed over when it ends."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import Sample, SampleRequest, check_request
from azr_nemo.rollout.sampling import draw, uniforms
from azr_nemo.rollout.stops import Decode, check, completes
from azr_nemo.rollout.truncation import Truncation, truncated


class Row:
    """Sample `number` of request `index`, as far as it is drawn."""

    def __init__(self, index: int, number: int, request: SampleRequest):
        self.index = index
        self.number = number
        self.request = request
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.ended = False
        self.uniforms: np.ndarray = uniforms(request.seed, request.first + number, request.max_new_tokens)

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the continuation."""
        return len(self.request.prompt_ids) + len(self.tokens)

    def next_uniform(self) -> float:
        return 0.0 if self.ended else float(self.uniforms[len(self.tokens)])


class Rollout:
    """The results of one `generate`: draws tokens for rows, in whatever batches the engine decodes them, and collects finished samples."""

    def __init__(
        self,
        requests: list[SampleRequest],
        eos_ids: list[int],
        on_sample: Callable[[int, int, Sample], None] | None,
        decode: Decode | None = None,
        weight_version: int = 0,
    ):
        """weight_version: which weights draw the samples, as the trainer counts them."""
        for request in requests:
            check_request(request)
            check(request, decode)
        self._weight_version = weight_version
        self._eos_ids = frozenset(eos_ids)
        self._on_sample = on_sample
        self._decode = decode
        self._samples: list[list[Sample | None]] = [[None] * request.samples for request in requests]
        # Longest prompts first: rows that are batched together then need little padding, and a waiting prompt is never longer than a live row.
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt_ids))
        self.rows = [Row(i, k, requests[i]) for i in order for k in range(requests[i].samples)]
        self._drawn = 0
        self._most = sum(row.request.max_new_tokens for row in self.rows)

    def draw(self, rows: list[Row], logits: Tensor) -> Tensor:
        """Draws the next token of each row from logits [rows, vocabulary], appends it, hands over the samples that it ends.

        Returns the tokens, [rows] int64. A row that had ended before is ignored. Raises UserError when the logits are not finite.
        """
        uniform = torch.tensor([row.next_uniform() for row in rows], dtype=torch.float64, device=logits.device)
        temperature = torch.tensor([row.request.temperature for row in rows], dtype=torch.float64, device=logits.device)
        cuts = [Truncation(row.request.top_p, row.request.top_k, row.request.min_p) for row in rows]
        try:
            tokens, logprobs = draw(truncated(logits, temperature, cuts), uniform, temperature)
        except FloatingPointError as error:
            raise UserError(f"{error}: the weights have diverged; lower optim.lr and resume from an earlier checkpoint") from error
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if not row.ended:
                self._append(row, token, logprob)
                self._drawn += 1
        progress.at_most(self._drawn, self._most, tokens=self._drawn)
        return tokens

    def _append(self, row: Row, token: int, logprob: float) -> None:
        row.tokens.append(token)
        row.logprobs.append(logprob)
        finished = token in self._eos_ids or completes(row.tokens, row.request, self._decode)
        row.ended = finished or len(row.tokens) == row.request.max_new_tokens
        if row.ended:
            sample = Sample(tuple(row.tokens), tuple(row.logprobs), finished, self._weight_version)
            self._samples[row.index][row.number] = sample
            if self._on_sample is not None:
                self._on_sample(row.index, row.number, sample)

    def samples(self) -> list[list[Sample]]:
        """All samples, in the order of the requests; every row must have ended."""
        done = [[sample for sample in samples if sample is not None] for samples in self._samples]
        if [len(samples) for samples in done] != [len(samples) for samples in self._samples]:
            raise RuntimeError("some samples were asked for before they had ended")
        return done
