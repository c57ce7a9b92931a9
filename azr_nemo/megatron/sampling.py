"""Sampling over all ranks: every rank is a data-parallel replica of the rollout engine and takes its share of the requests."""

import hashlib
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from azr_nemo.megatron.commands import join_ids, receive_from, send_to_first, split_ids
from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest

OnSample = Callable[[int, int, Sample], None]
_ANSWER = (torch.int64, torch.int64, torch.float64, torch.bool)


def request_seed(seed: int, index: int) -> int:
    """The seed of prompt `index` of a batch: a stable hash, the same on every machine and in every layout."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()) >> 1


def encode_requests(requests: Sequence[SampleRequest]) -> tuple[Tensor, ...]:
    """Requests as tensors, for a command."""
    flat, lengths = join_ids([request.prompt_ids for request in requests])
    whole = torch.tensor([[r.samples, r.max_new_tokens, r.seed] for r in requests], dtype=torch.int64).view(-1, 3)
    return flat, lengths, whole, torch.tensor([r.temperature for r in requests], dtype=torch.float64)


def decode_requests(tensors: Sequence[Tensor]) -> list[SampleRequest]:
    """Undoes encode_requests."""
    flat, lengths, whole, temperatures = tensors
    return [
        SampleRequest(ids, samples, longest, temperature, seed)
        for ids, (samples, longest, seed), temperature in zip(split_ids(flat, lengths), whole.tolist(), temperatures.tolist(), strict=True)
    ]


def share_of(requests: Sequence[SampleRequest], rank: int, ranks: int) -> list[int]:
    """Indices of one rank's requests: dealt round robin from the longest to the shortest, so that ranks finish together."""

    def work(index: int) -> tuple[int, int]:
        request = requests[index]
        return -(len(request.prompt_ids) + request.samples * request.max_new_tokens), index

    return sorted(range(len(requests)), key=work)[rank::ranks]


def sample_everywhere(
    rollout: RolloutEngine, requests: list[SampleRequest], on_sample: OnSample | None = None
) -> list[list[Sample]] | None:
    """Samples all requests, each rank its share. Collective. Rank 0 gets every result, result[i][k] of request i; the others None.

    on_sample(i, k, sample) is called on rank 0: as they end for its own share, and when they are gathered for the others'.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = share_of(requests, rank, ranks)

    def arrived(place: int, k: int, sample: Sample) -> None:
        if on_sample is not None:
            on_sample(mine[place], k, sample)

    own = rollout.generate([requests[index] for index in mine], arrived if rank == 0 else None)
    if rank:
        samples = [sample for group in own for sample in group]
        flat, lengths = join_ids([sample.token_ids for sample in samples])
        logprobs = torch.tensor([value for sample in samples for value in sample.logprobs], dtype=torch.float64)
        send_to_first([flat, lengths, logprobs, torch.tensor([sample.finished for sample in samples], dtype=torch.bool)])
        return None
    results: list[list[Sample]] = [[] for _ in requests]
    for index, group in zip(mine, own, strict=True):
        results[index] = group
    for other in range(1, ranks):
        flat, lengths, logprobs, finished = receive_from(other, _ANSWER)
        samples = [
            Sample(ids, tuple(values.tolist()), end)
            for ids, values, end in zip(split_ids(flat, lengths), logprobs.split(lengths.tolist()), finished.tolist(), strict=True)
        ]
        for index in share_of(requests, other, ranks):
            results[index], samples = samples[: requests[index].samples], samples[requests[index].samples :]
            for k, sample in enumerate(results[index]):
                if on_sample is not None:
                    on_sample(index, k, sample)
    return results
