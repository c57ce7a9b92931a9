import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from azr_nemo.megatron import head
from azr_nemo.megatron.head import token_scores


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
