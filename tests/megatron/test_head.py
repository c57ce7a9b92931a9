import threading

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from azr_nemo.megatron import head
from azr_nemo.megatron.head import token_scores, wide_gradients


def reference(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logp = torch.log_softmax((hidden @ weight.t()).float() / temperature, -1)
    return logp.gather(-1, targets[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(2, 40), st.floats(0.3, 3), st.integers(0, 99), st.sampled_from([1, 64, 2**20]))
def test_scores_and_gradients_are_those_of_a_plain_log_softmax(n: int, vocab: int, temperature: float, seed: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, vocab, (n,), generator=generator)
    tensors = [torch.randn(n, 8, generator=generator), torch.randn(vocab, 8, generator=generator)]
    weights = torch.randn(2, n, generator=generator)
    results = []
    limit, head.BLOCK["cpu"] = head.BLOCK["cpu"], block
    try:
        for score in (
            lambda h, w: token_scores(h, w, targets, temperature=temperature),
            lambda h, w: reference(h, w, targets, temperature),
        ):
            hidden, weight = (tensor.clone().requires_grad_() for tensor in tensors)
            logprobs, entropies = score(hidden, weight)
            (weights[0] @ logprobs + weights[1] @ entropies).backward()
            results.append((logprobs, entropies, hidden.grad, weight.grad))
    finally:
        head.BLOCK["cpu"] = limit
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[3e4], [-3e4], [0.0]])
    logprobs, entropies = token_scores(hidden, weight, torch.tensor([1]))
    assert logprobs.tolist() == [-6e4]
    assert entropies.tolist() == [0.0]


def test_bfloat16_is_scored_in_fp32() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 16).bfloat16(), torch.randn(300, 16).bfloat16()
    targets = torch.arange(5)
    logprobs, entropies = token_scores(hidden, weight, targets)
    assert logprobs.dtype == entropies.dtype == torch.float32
    torch.testing.assert_close(logprobs, reference(hidden, weight, targets, 1.0)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_fp32_logits_are_closer_to_the_truth_in_bfloat16(temperature: float) -> None:
    """Against the same bfloat16 numbers in float64, log-probabilities, entropies and both gradients."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(64, 128, generator=generator).bfloat16(), torch.randn(500, 128, generator=generator).bfloat16()
    targets, pull = torch.randint(0, 500, (64,), generator=generator), torch.randn(2, 64, generator=generator)

    def errors(fp32_logits: bool) -> list[float]:
        found, truth = [], []
        for tensors, numbers in (((hidden, weight), found), ((hidden.double(), weight.double()), truth)):
            h, w = (tensor.clone().requires_grad_() for tensor in tensors)
            if numbers is truth:
                logp = torch.log_softmax(h @ w.t() / temperature, -1)
                scores = logp.gather(-1, targets[:, None])[:, 0], -(logp.exp() * logp).sum(-1)
            else:
                scores = token_scores(h, w, targets, temperature=temperature, fp32_logits=fp32_logits)
            (pull[0].to(scores[0].dtype) @ scores[0] + pull[1].to(scores[1].dtype) @ scores[1]).backward()
            assert h.grad is not None
            assert w.grad is not None
            numbers += [*scores, h.grad, w.grad]
        return [float((mine.double() - theirs).abs().mean()) for mine, theirs in zip(found, truth, strict=True)]

    coarse, fine = errors(fp32_logits=False), errors(fp32_logits=True)
    assert all(f < c for f, c in zip(fine, coarse, strict=True)), (fine, coarse)
    assert max(fine[:2]) < 1e-4 < 1e-3 < min(coarse[:2])  # scores are fp32; gradients are rounded to bfloat16 at the end


@pytest.mark.parametrize("split", [False, True])
def test_gradients_of_fp32_logits_lose_nothing_that_bfloat16_factors_have(split: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head.BLOCK, "cpu", 1000)  # several blocks
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 300, generator=generator) * 10 ** torch.linspace(-6, 3, 50)[:, None]
    weight, hidden = torch.randn(300, 40, generator=generator).bfloat16(), torch.randn(50, 40, generator=generator).bfloat16()
    found = wide_gradients(logits, weight, hidden, True, split)
    for mine, theirs in zip(found, (logits.double() @ weight.double(), logits.double().t() @ hidden.double()), strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 2**-16
    rough = logits.bfloat16().double() @ weight.double()
    assert float((rough - logits.double() @ weight.double()).norm() / rough.norm()) > 2**-11


@pytest.mark.parametrize("fp32_logits", [False, True])
def test_a_vocabulary_split_over_two_ranks_scores_as_one(fp32_logits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads stand for the ranks: they meet in all_reduce."""
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 16).bfloat16(), torch.randn(31, 16).bfloat16(), torch.arange(9) * 3
    alone = token_scores(hidden, weight, targets, fp32_logits=fp32_logits)
    meeting, shared, found = threading.Barrier(2, timeout=60), [torch.empty(0)] * 2, [alone] * 2

    class Pair(threading.local):
        rank = 0

        def size(self) -> int:
            return 2

    pair = Pair()

    def all_reduce(tensor: Tensor, op: object = dist.ReduceOp.SUM, group: object = None) -> None:
        shared[pair.rank] = tensor.clone()
        meeting.wait()
        tensor.copy_(torch.maximum(*shared) if op == dist.ReduceOp.MAX else shared[0] + shared[1])
        meeting.wait()

    def work(rank: int, first: int, part: Tensor) -> None:
        pair.rank = rank
        found[rank] = token_scores(hidden, part, targets, first=first, group=pair, fp32_logits=fp32_logits)  # type: ignore[arg-type]

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    threads = [threading.Thread(target=work, args=job) for job in ((0, 0, weight[:16]), (1, 16, weight[16:]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for scores in found:
        assert scores is not alone
        torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)
