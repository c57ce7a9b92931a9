"""Rollouts by our own decode: ended rows retire, waiting prompts take their place, samples of one prompt share its prefill."""

from collections import deque
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest
from azr_nemo.rollout.sampling import Rollout, Row
from azr_nemo.rollout.stops import Decode
from azr_nemo.rollout.torch.decoder import Cache, Prefix, decode, prefill
from azr_nemo.rollout.torch.packed_weights import Weights, load_weights, read_shape

VACANT = 4  # the batch is rebuilt once one row in so many is vacant: rebuilding copies the cache, about the cost of a step


class TorchRollout(RolloutEngine):
    """A RolloutEngine for Llama, Qwen2 and Qwen3, on CPU or CUDA; see `azr_nemo.rollout.engine` for the protocol."""

    def __init__(
        self,
        hf_config: PretrainedConfig,
        dtype: torch.dtype,
        eos_ids: list[int],
        device: torch.device,
        max_batch_rows: int,
        decode: Decode | None = None,
    ):
        self._shape = read_shape(hf_config)
        self._dtype = dtype
        self._eos_ids = eos_ids
        self._device = device
        self._max_batch_rows = max_batch_rows
        self._text = decode
        self._weights: Weights | None = None
        self._version = 0

    @torch.no_grad()
    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        """Fuses and packs the stream's tensors. Raises UserError when names or shapes do not fit the model, or some never came."""
        self._weights = None  # the old ones make room first
        self._weights = load_weights(weights, self._shape, self._dtype, self._device)
        self._version = version

    def sleep(self) -> None:
        """Gives its weights up: the update's activations take their place."""
        self._weights = None

    @torch.inference_mode()
    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        """Samples each request; result[i][k] is sample k of request i. At most `max_batch_rows` rows are decoded together."""
        if self._weights is None:
            raise RuntimeError("generate was called before refit, or after sleep without one")
        shape = self._shape
        rollout = Rollout(requests, self._eos_ids, on_sample, self._text, self._version)
        waiting = deque(rollout.rows)
        rows: list[Row] = []
        cache = Cache(shape.layers, shape.kv_heads, shape.head_dim, self._dtype, self._device)
        full = True
        while True:
            live = [number for number, row in enumerate(rows) if not row.ended]
            seats = self._max_batch_rows if waiting else len(rows)
            if full or (seats - len(live)) * VACANT >= seats:
                joining, joined = self._admit(rollout, waiting, self._max_batch_rows - len(live))
                cache.rebuild(live, joining)
                rows = [rows[number] for number in live] + joined
                if not rows and not waiting:
                    return rollout.samples()
            if rows:
                tokens = torch.tensor([row.tokens[-1] for row in rows], device=self._device)
                rollout.draw(rows, decode(self._weights, shape, tokens, cache))
                full = cache.close_column()

    def _admit(self, rollout: Rollout, waiting: deque[Row], seats: int) -> tuple[list[tuple[Prefix, int]], list[Row]]:
        """Prefills up to `seats` waiting rows, each distinct prompt once, and draws their first tokens; rows that these end do not join.

        Returns (prefix, rows that continue it) for each prompt, and those rows in the same order.
        """
        assert self._weights is not None
        entering: dict[tuple[int, ...], list[Row]] = {}
        for _ in range(min(seats, len(waiting))):
            row = waiting.popleft()
            entering.setdefault(row.request.prompt_ids, []).append(row)
        if not entering:
            return [], []
        logits, prefixes = prefill(self._weights, self._shape, list(entering))
        repeats = torch.tensor([len(rows) for rows in entering.values()], device=self._device)
        rollout.draw([row for rows in entering.values() for row in rows], logits.repeat_interleave(repeats, dim=0))
        going = [[row for row in rows if not row.ended] for rows in entering.values()]
        joining = [(prefix, len(rows)) for prefix, rows in zip(prefixes, going, strict=True) if rows]
        return joining, [row for rows in going for row in rows]
