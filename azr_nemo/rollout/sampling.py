"""The samples that are decoded together: each draws its next token from its own seed, and is handed over when it ends."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import Sample, SampleRequest, check_request
from azr_nemo.rollout.stops import Decode, check, completes

BLOCK = 128  # tokens summed before the search; a search over blocks, then inside one, spares a cumulative sum over the vocabulary
WORD = 2**64


def uniforms(seed: int, sample: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64, of sample number `sample` of a request with this seed.

    Philox is counter-based (Salmon et al., SC'11): the pair is its key, so streams need no shared state and no order.
    """
    key = np.array([seed % WORD, sample % WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def draw(logits: Tensor, uniform: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row: (token ids [rows] int64, log-probabilities [rows] float64).

    logits: [rows, vocabulary], any float dtype. uniform: [rows] float64 in [0, 1). temperature: [rows]; 0 takes the most likely token and
    its log-probability under the untempered distribution, otherwise both belong to softmax(logits / temperature).
    Raises FloatingPointError where a row of logits has NaN or +inf.
    """
    greedy = temperature == 0
    if bool((temperature != 1).any()):
        scaled = logits.float() / temperature.float().masked_fill(greedy, 1.0)[:, None]
    else:
        scaled = logits
    weights = torch.softmax(scaled, dim=-1, dtype=torch.float32)
    if weights.shape[1] % BLOCK:
        weights = F.pad(weights, (0, -weights.shape[1] % BLOCK))
    blocks = weights.view(len(weights), -1, BLOCK)
    totals = blocks.sum(-1)
    cumulative = totals.double().cumsum(-1)
    if not bool(torch.isfinite(cumulative[:, -1]).all()):
        raise FloatingPointError("the model's logits are not finite")
    block, share = _search(cumulative, uniform)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block].double().cumsum(-1)
    position, _ = _search(inside, share)
    tokens = block * BLOCK + position
    if bool(greedy.any()):
        tokens = torch.where(greedy, logits.argmax(-1), tokens)
    chosen = weights.gather(1, tokens[:, None])[:, 0].double()
    return tokens, torch.log(chosen / cumulative[:, -1])


def _search(cumulative: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of each row that `uniform` of its total falls into, and how far into it, as a share in [0, 1].

    The target stays below the total, so an interval of weight zero is never chosen, whatever the rounding.
    """
    total = cumulative[:, -1:]
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target, right=True)
    upper = cumulative.gather(1, index)
    lower = torch.where(index > 0, cumulative.gather(1, (index - 1).clamp(min=0)), 0.0)
    return index[:, 0], ((target - lower) / (upper - lower))[:, 0]


class Truncation(NamedTuple):
    """1, 0 and 0 leave every token in."""

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


WHOLE = Truncation()


def truncated(logits: Tensor, temperature: Tensor, cuts: Sequence[Truncation]) -> Tensor:
    """Logits [rows, vocabulary] with -inf where a row's tokens may not be drawn; the same tensor where every row draws from all of them.

    temperature: [rows]. A row of temperature 0 stays whole: it takes the likeliest token anyway, with its probability among all.
    """
    cut = [row for row, (its, cold) in enumerate(zip(cuts, (temperature == 0).tolist(), strict=True)) if its != WHOLE and not cold]
    if not cut:
        return logits
    rows = torch.tensor(cut, device=logits.device)
    tempered = logits[rows].float() / temperature[rows].float()[:, None]
    sorted_logits, order = tempered.sort(dim=-1, descending=True)
    column = {name: torch.tensor([getattr(cuts[row], name) for row in cut], device=logits.device)[:, None] for name in Truncation._fields}
    places = torch.arange(logits.shape[1], device=logits.device)
    dropped = (sorted_logits - sorted_logits[:, :1]).exp() < column["min_p"]
    dropped |= (column["top_k"] > 0) & (places >= column["top_k"])
    probabilities = sorted_logits.masked_fill(dropped, -torch.inf).softmax(-1)
    # A token belongs to the nucleus when those before it do not fill it yet: the likeliest always does.
    dropped |= probabilities.cumsum(-1) - probabilities >= column["top_p"]
    dropped[:, 0] = False
    out = logits.clone()
    out[rows] = out[rows].masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), -torch.inf)
    return out


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
