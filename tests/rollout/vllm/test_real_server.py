"""What only a real vLLM can show: a tied output layer that took the new weights, prompts over several blocks, evaluation, the doctor."""

import os
import threading

import pytest
import torch
from rollout_models import CONFIGS, decode, engine, prompt, random_model

from azr_nemo.rollout.engine import SampleRequest

pytestmark = [
    pytest.mark.skipif("AZR_VLLM_TESTS" not in os.environ, reason="a real vLLM server: `make test-vllm`"),
    pytest.mark.timeout(1500),
]
LONG = 1000  # tokens: of a hundred, a fast server has drawn the last before new weights reach it


def test_new_weights_of_a_tied_model_are_those_of_a_model_that_never_had_others():
    """vLLM on a CPU keeps a packed copy of the output layer, which its own reload leaves on the old weights: the log-probabilities show it."""
    first, second = (random_model(CONFIGS["protocol"], seed) for seed in (0, 1))
    assert first.config.tie_word_embeddings
    rollout = engine("vllm", first)
    rollout.generate([SampleRequest(prompt(140), 2, 8, 1.0, 3)])  # its keys and values must not outlive the weights
    rollout.refit(second.named_parameters(), 1)
    request = SampleRequest(prompt(140), 3, 16, 1.0, 3)
    for sample in rollout.generate([request])[0]:
        torch.testing.assert_close(torch.tensor(sample.logprobs), logprobs(second, request, sample), atol=1e-4, rtol=0)


def logprobs(model, request, sample):
    """Of the sample's tokens, by transformers."""
    ids = torch.tensor([request.prompt_ids + sample.token_ids])
    with torch.no_grad():
        rows = torch.log_softmax(model(ids).logits[0, len(request.prompt_ids) - 1 : -1], -1)
    return rows.gather(1, ids[0, len(request.prompt_ids) :, None])[:, 0]


def test_weights_that_change_between_tokens_draw_those_that_follow_as_if_they_had_read_all_before():
    """`rollout.update_in_flight`: each token has the log-probability that the weights of its span give it after all tokens before."""
    first, second = (random_model(CONFIGS["protocol"], seed) for seed in (0, 1))
    rollout, drawing = engine("vllm", first, eos=(), update_in_flight=True), threading.Event()
    request, found = SampleRequest(prompt(140), 12, LONG, 1.0, 3), []
    last = SampleRequest(prompt(9), 1, LONG, 1.0, 4, stop=("no such letters",))  # a stop has its tokens looked at as they come in

    def seen(ids):
        drawing.set()
        return decode(ids)

    rollout._text = seen
    thread = threading.Thread(target=lambda: found.extend(rollout.generate([request, last])[0]), daemon=True)
    thread.start()
    assert drawing.wait(120)
    rollout.refit(second.named_parameters(), 1)
    thread.join(300)
    assert len(found) == 12
    switches = [first for sample in found for first, _ in sample.newer]
    print(f"\nweights changed after {sorted(switches)} of {LONG} tokens")
    assert len(switches) == 12, "all were under way"
    for sample in found:
        ((at, version),) = sample.newer
        assert (sample.weight_version, version, len(sample.token_ids)) == (0, 1, LONG)
        old, new = (logprobs(model, request, sample) for model in (first, second))
        own = torch.tensor(sample.logprobs)
        torch.testing.assert_close(own, torch.cat([old[:at], new[at:]]), atol=1e-4, rtol=0)
        assert (own - old)[at:].abs().max() > 0.1, "the old weights would have said something else"


def test_samples_are_the_same_in_another_order_and_alone():
    rollout = engine("vllm", random_model(CONFIGS["protocol"]))
    requests = [SampleRequest(prompt(length), 3, 24, 1.0, length) for length in (5, 9, 150, 31)]
    together = rollout.generate(requests)
    turned = rollout.generate(requests[::-1])[::-1]
    alone = [rollout.generate([request])[0] for request in requests]
    ids = [[[sample.token_ids for sample in group] for group in groups] for groups in (together, turned, alone)]
    assert ids[0] == ids[1] == ids[2]
