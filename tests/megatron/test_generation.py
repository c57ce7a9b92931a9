"""Samples over several ranks: who draws what, and how they reach rank 0."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import EchoRollout

from azr_nemo.megatron import generation
from azr_nemo.megatron.generation import LARGEST_PIECE, PROMPT_TOKEN, ExpectedLengths, Piece, deal, sample_everywhere
from azr_nemo.rollout.engine import Sample, SampleRequest

REQUESTS = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 12), st.floats(1, 500)), min_size=1, max_size=20)


def requests_of(rows: list[tuple[int, int, float]]) -> tuple[list[SampleRequest], list[float]]:
    return [SampleRequest((1,) * prompt, samples, 500, 1.0, 0) for prompt, samples, _ in rows], [length for *_, length in rows]


@given(REQUESTS, st.integers(1, 9))
def test_every_sample_is_dealt_once_and_no_rank_leads_by_more_than_a_piece(rows: list[tuple[int, int, float]], ranks: int) -> None:
    requests, lengths = requests_of(rows)
    pieces = deal(requests, lengths, ranks)
    samples = [(piece.index, k) for piece in pieces for k in range(piece.first, piece.first + piece.count)]
    assert sorted(samples) == [(index, k) for index, request in enumerate(requests) for k in range(request.samples)]
    costs = [PROMPT_TOKEN * len(requests[piece.index].prompt_ids) + piece.count * lengths[piece.index] for piece in pieces]
    loads = [sum(cost for cost, piece in zip(costs, pieces, strict=True) if piece.rank == rank) for rank in range(ranks)]
    assert max(loads) - min(loads) <= max(costs) + 1e-6 or ranks == 1
    if ranks > 1:
        even = sum(PROMPT_TOKEN * p + n * length for p, n, length in rows) / ranks
        one_sample = max(PROMPT_TOKEN * p + length for p, _, length in rows)
        assert max(costs) <= max(LARGEST_PIECE * even, one_sample) + 1e-6


def test_the_samples_of_one_long_prompt_are_shared() -> None:
    pieces = deal([SampleRequest((1,) * 100, 8, 500, 1.0, 0)], [250.0], 4)
    assert [sum(piece.count for piece in pieces if piece.rank == rank) for rank in range(4)] == [2, 2, 2, 2]


def test_short_prompts_keep_their_samples_together() -> None:
    requests = [SampleRequest((1,) * 10, 2, 500, 1.0, 0)] * 16
    assert {piece.count for piece in deal(requests, [20.0] * 16, 2)} == {2}


def test_of_ranks_that_decode_together_the_first_is_dealt_all() -> None:
    requests = [SampleRequest((1, 2), 4, 50, 1.0, seed) for seed in range(6)]
    alone, together = deal(requests, [20.0] * 6, 4), deal(requests, [20.0] * 6, 8, replica=2)
    assert together == [Piece(2 * piece.rank, piece.index, piece.first, piece.count) for piece in alone]
    assert {piece.rank for piece in together} == {0, 2, 4, 6}


def test_expected_lengths_follow_what_was_seen() -> None:
    lengths = ExpectedLengths()
    assert lengths.of("propose", 100) == 50
    lengths.learn("propose", [10, 30])
    assert lengths.of("propose", 100) == 20
    lengths.learn("propose", [60, 60])
    assert (lengths.of("propose", 100), lengths.of("propose", 30)) == (40, 30)


class Wire:
    """Two ranks as two threads: what one sends the other receives."""

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []
        self.arrived = threading.Condition()
        self.here = threading.local()

    def send(self, tensor: torch.Tensor, **_: Any) -> None:
        with self.arrived:
            self.sent.append(tensor.clone())
            self.arrived.notify_all()

    def recv(self, tensor: torch.Tensor, **_: Any) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.sent, timeout=20)
            tensor.copy_(self.sent.pop(0))


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(generation.dist, "send", wire.send)
    monkeypatch.setattr(generation.dist, "recv", wire.recv)
    monkeypatch.setattr(generation.dist, "get_rank", lambda: getattr(wire.here, "rank", 0))
    monkeypatch.setattr(generation.dist, "get_world_size", lambda: 2)
    return wire


def on_rank_1(wire: Wire, run: Callable[[], Any]) -> threading.Thread:
    def body() -> None:
        wire.here.rank = 1
        run()

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def test_a_sample_of_another_rank_is_heard_while_rank_0_is_still_drawing(wire: Wire) -> None:
    requests = [SampleRequest((7,), 1, 8, 1.0, 3), SampleRequest((9,), 2, 8, 1.0, 4)]
    pieces = [Piece(0, 0, 0, 1), Piece(1, 1, 0, 2)]
    heard: list[tuple[int, int, Sample]] = []

    class Slow(EchoRollout):
        """Ends only once both samples of the other rank have been heard."""

        def generate(self, *args: Any) -> Any:
            deadline = time.monotonic() + 20
            while len(heard) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return super().generate(*args)

    other = on_rank_1(wire, lambda: sample_everywhere(EchoRollout(), requests, pieces))
    results = sample_everywhere(Slow(), requests, pieces, lambda *what: heard.append(what))
    other.join(20)
    assert [(index, k) for index, k, _ in heard] == [(1, 0), (1, 1), (0, 0)]
    assert results == EchoRollout().generate(requests)


def test_what_is_done_with_one_ranks_sample_does_not_wait_for_anothers(wire: Wire) -> None:
    requests = [SampleRequest((7,), 1, 8, 1.0, 3), SampleRequest((9,), 1, 8, 1.0, 4)]
    pieces = [Piece(0, 0, 0, 1), Piece(1, 1, 0, 1)]
    both = threading.Barrier(2, timeout=20)  # broken where one is done after the other
    other = on_rank_1(wire, lambda: sample_everywhere(EchoRollout(), requests, pieces))
    heard = []
    sample_everywhere(EchoRollout(), requests, pieces, lambda *what: (both.wait(), heard.append(what)))
    other.join(20)
    assert sorted((index, k) for index, k, _ in heard) == [(0, 0), (1, 0)]
    assert not both.broken


def test_a_sample_of_several_versions_says_so_to_rank_0_too(wire: Wire) -> None:
    requests = [SampleRequest((9,), 2, 8, 1.0, 4)]
    spans = ((1, 6), (2, 7))

    class Mixed(EchoRollout):
        def generate(self, requests: list[SampleRequest], on_sample: Any = None) -> Any:
            return super().generate(requests, lambda index, k, sample: on_sample(index, k, replace(sample, weight_version=5, newer=spans)))

    pieces = [Piece(1, 0, 0, 2)]
    other = on_rank_1(wire, lambda: sample_everywhere(Mixed(), requests, pieces))
    results = sample_everywhere(None, requests, pieces)
    other.join(20)
    assert results == [[replace(sample, weight_version=5, newer=spans) for sample in EchoRollout().generate(requests)[0]]]


def test_an_error_in_a_callback_reaches_whoever_asked_for_the_samples(wire: Wire) -> None:
    requests = [SampleRequest((7,), 1, 8, 1.0, 3), SampleRequest((9,), 2, 8, 1.0, 4)]

    def broken(index: int, k: int, sample: Sample) -> None:
        if index == 1:
            raise ValueError("the executor is gone")

    other = on_rank_1(wire, lambda: sample_everywhere(EchoRollout(), requests, [Piece(0, 0, 0, 1), Piece(1, 1, 0, 2)]))
    with pytest.raises(ValueError, match="the executor is gone"):
        sample_everywhere(EchoRollout(), requests, [Piece(0, 0, 0, 1), Piece(1, 1, 0, 2)], broken)
    other.join(20)
    assert not other.is_alive()
