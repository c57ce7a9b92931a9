"""Sampling over all ranks: every rank is a data-parallel replica of the rollout engine and takes its share of the samples.

Rank 0 deals the work by expected length and hears each sample as it ends, wherever it was drawn, so that programs execute while any rank
is still generating. A sample depends on its prompt, its seed and the weights, never on the rank that draws it.
"""

import hashlib
import heapq
import json
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from azr_nemo.megatron import distributed
from azr_nemo.megatron.commands import join_ids, split_ids
from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest

OnSample = Callable[[int, int, Sample], None]

# What a prompt's token costs beside a sampled one: it is computed in parallel with its neighbours. A rough figure, for balance alone.
PROMPT_TOKEN = 0.25
# No piece is larger than this part of a rank's even share, or than one sample: what bounds the lead of the slowest rank.
LARGEST_PIECE = 0.25


@dataclass(frozen=True)
class Piece:
    """Samples first .. first + count - 1 of request `index`, drawn by one rank."""

    rank: int
    index: int
    first: int
    count: int


def request_seed(seed: int, index: int) -> int:
    """The seed of prompt `index` of a batch: a stable hash, the same on every machine and in every layout."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()) >> 1


def encode_requests(requests: Sequence[SampleRequest], pieces: Sequence[Piece]) -> tuple[Tensor, ...]:
    """Requests and who draws what, as tensors for a command."""
    flat, lengths = join_ids([request.prompt_ids for request in requests])
    whole = torch.tensor([[r.samples, r.max_new_tokens, r.seed] for r in requests], dtype=torch.int64).view(-1, 3)
    temperatures = torch.tensor([r.temperature for r in requests], dtype=torch.float64)
    shares = torch.tensor([[p.rank, p.index, p.first, p.count] for p in pieces], dtype=torch.int64).view(-1, 4)
    stops = json.dumps([[r.stop, r.stop_token_ids, r.top_p, r.top_k, r.min_p] for r in requests]).encode()
    return flat, lengths, whole, temperatures, shares, torch.frombuffer(bytearray(stops), dtype=torch.uint8)


def decode_requests(tensors: Sequence[Tensor]) -> tuple[list[SampleRequest], list[Piece]]:
    """Undoes encode_requests."""
    flat, lengths, whole, temperatures, shares, stops = tensors
    columns = (split_ids(flat, lengths), whole.tolist(), temperatures.tolist(), json.loads(stops.numpy().tobytes()))
    requests = [
        SampleRequest(ids, samples, longest, temperature, seed, 0, tuple(strings), tuple(tokens), *truncation)
        for ids, (samples, longest, seed), temperature, (strings, tokens, *truncation) in zip(*columns, strict=True)
    ]
    return requests, [Piece(*row) for row in shares.tolist()]


class ExpectedLengths:
    """How long responses of a kind are, learnt from those seen. Only the balance between ranks depends on it, no sample does."""

    def __init__(self) -> None:
        self._means: dict[Hashable, float] = {}

    def of(self, kind: Hashable, longest: int) -> float:
        """Tokens; half of the longest possible before anything was seen."""
        return min(longest, self._means.get(kind, longest / 2))

    def learn(self, kind: Hashable, lengths: Sequence[int]) -> None:
        """Moves half-way to the mean of these responses."""
        mean = sum(lengths) / len(lengths)
        self._means[kind] = (self._means.get(kind, mean) + mean) / 2


def deal(requests: Sequence[SampleRequest], lengths: Sequence[float], ranks: int, replica: int = 1) -> list[Piece]:
    """Every sample of every request to one of the ranks, or, where `replica` ranks decode together, to the first of them: the costliest piece
    first, always to the rank that has least to do.

    lengths: expected tokens of a sample of each request. The samples of one prompt stay together, so that it is read once, unless they are
    more than a quarter of an even share. So no rank is given more than the even share and one piece (Graham 1966, list scheduling).
    """
    ranks //= replica
    if ranks == 1:
        return [Piece(0, index, 0, request.samples) for index, request in enumerate(requests)]
    prompts = [PROMPT_TOKEN * len(request.prompt_ids) for request in requests]
    even = sum(prompt + request.samples * length for prompt, request, length in zip(prompts, requests, lengths, strict=True)) / ranks
    pieces: list[tuple[float, int, int, int]] = []
    for index, (request, length) in enumerate(zip(requests, lengths, strict=True)):
        most = max(1, int((LARGEST_PIECE * even - prompts[index]) / max(length, 1e-9)))
        for first in range(0, request.samples, most):
            count = min(most, request.samples - first)
            pieces.append((-(prompts[index] + count * length), index, first, count))
    loads = [(0.0, rank) for rank in range(ranks)]
    dealt = []
    for cost, index, first, count in sorted(pieces):
        load, rank = heapq.heappop(loads)
        heapq.heappush(loads, (load - cost, rank))
        dealt.append(Piece(rank * replica, index, first, count))
    return dealt


class Channel(Protocol):
    """How samples reach rank 0 of `ranks`."""

    @property
    def rank(self) -> int: ...

    @property
    def ranks(self) -> int: ...

    def send(self, tensor: Tensor) -> None: ...

    def recv(self, tensor: Tensor, source: int) -> None: ...


class TrainersRanks:
    """Between the trainer's ranks, each of which samples too."""

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def ranks(self) -> int:
        return dist.get_world_size()

    def send(self, tensor: Tensor) -> None:
        dist.send(tensor, dst=0, group=distributed.samples_group())

    def recv(self, tensor: Tensor, source: int) -> None:
        dist.recv(tensor, src=source, group=distributed.samples_group())


def sample_everywhere(
    rollout: RolloutEngine | None,
    requests: Sequence[SampleRequest],
    pieces: Sequence[Piece],
    on_sample: OnSample | None = None,
    channel: Channel = TrainersRanks(),  # noqa: B008 - it has no state
) -> list[list[Sample]] | None:
    """Samples all requests, each rank its pieces. Collective. Rank 0 gets every result, result[i][k] of request i; the others None.
    rollout: None on a rank 0 without pieces.

    on_sample(i, k, sample) is called on rank 0 as each sample ends, on whatever rank, from a thread of that rank's: several at a time.
    """
    mine = [piece for piece in pieces if piece.rank == channel.rank]
    own = [replace(requests[piece.index], samples=piece.count, first=piece.first) for piece in mine]
    if channel.rank:
        with _Sender(channel) as sender:

            def ended(place: int, k: int, sample: Sample) -> None:
                distributed.advance()
                sender.put(mine[place].index, mine[place].first + k, sample)

            if own and rollout:
                rollout.generate(own, ended)
        return None
    receiver = _Receiver(requests, on_sample, channel)

    def arrived(place: int, k: int, sample: Sample) -> None:
        distributed.advance()
        receiver.take(mine[place].index, mine[place].first + k, sample)
        receiver.check()

    receiver.start()
    try:
        if own and rollout:
            rollout.generate(own, arrived)
    finally:
        with distributed.waiting():
            receiver.join()
    receiver.check()
    return receiver.results()


_END = -1  # in place of a request's index: a rank's last word


class _Sender:
    """Hands samples to rank 0 from a thread of its own, so that drawing the next one does not wait."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queue: queue.SimpleQueue[tuple[int, int, Sample] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)

    def put(self, index: int, k: int, sample: Sample) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put((index, k, sample))

    def __enter__(self) -> "_Sender":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return  # rank 0 learns of it through the watchdog; what it waits for would never come
        self._queue.put(None)
        with distributed.waiting():
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                index, k, sample = item
                header = [index, k, len(sample.token_ids), sample.finished, sample.weight_version, len(sample.newer)]
                self._channel.send(torch.tensor(header, dtype=torch.int64))
                # Ids, the bits of the log-probabilities and the versions in one message.
                logprobs = torch.tensor(sample.logprobs, dtype=torch.float64).view(torch.int64)
                newer = torch.tensor(sample.newer, dtype=torch.int64).view(-1)
                self._channel.send(torch.cat([torch.tensor(sample.token_ids, dtype=torch.int64), logprobs, newer]))
            self._channel.send(torch.tensor([_END, 0, 0, 0, 0, 0], dtype=torch.int64))
        except RuntimeError as error:
            self._error = error


class _Receiver:
    """Collects all ranks' samples on rank 0: a thread for each other rank, so that a broken connection is noticed at once."""

    def __init__(self, requests: Sequence[SampleRequest], on_sample: OnSample | None, channel: Channel) -> None:
        self._channel = channel
        self._samples: list[list[Sample | None]] = [[None] * request.samples for request in requests]
        self._on_sample = on_sample
        self._error: BaseException | None = None
        self._lost = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(rank,), name=f"samples-{rank}", daemon=True) for rank in range(1, channel.ranks)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def take(self, index: int, k: int, sample: Sample) -> None:
        self._samples[index][k] = sample
        if self._on_sample is not None and self._error is None:
            self._on_sample(index, k, sample)

    def join(self) -> None:
        """Waits for the last word of every rank, or until a rank is lost: it breaks its connection, or the watchdog ends the run."""
        for thread in self._threads:
            while thread.is_alive() and not self._lost.is_set():
                thread.join(0.1)

    def check(self) -> None:
        """Raises what went wrong in another thread."""
        if self._error is not None:
            raise self._error

    def results(self) -> list[list[Sample]]:
        done = [[sample for sample in group if sample is not None] for group in self._samples]
        if [len(group) for group in done] != [len(group) for group in self._samples]:
            raise AssertionError("a sample was dealt to no rank")
        return done

    def _run(self, rank: int) -> None:
        header = torch.zeros(6, dtype=torch.int64)
        while True:
            try:
                self._channel.recv(header, rank)
                index, k, count, finished, version, newer = header.tolist()
                if index == _END:
                    return
                message = torch.zeros(2 * count + 2 * newer, dtype=torch.int64)
                if count:
                    self._channel.recv(message, rank)
            except RuntimeError as error:
                self._error = self._error or error
                self._lost.set()
                return
            ids, logprobs = message[:count].tolist(), message[count : 2 * count].view(torch.float64).tolist()
            spans = tuple((int(first), int(later)) for first, later in message[2 * count :].view(-1, 2))
            try:
                self.take(index, k, Sample(tuple(ids), tuple(logprobs), bool(finished), version, spans))
            except Exception as error:  # raised again by the main thread, once the other ranks have been heard out
                self._error = self._error or error
