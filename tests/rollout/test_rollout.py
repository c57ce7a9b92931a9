"""What every rollout engine promises: our own decode, transformers, vLLM's server, and TensorRT-LLM as far as a stand-in goes."""

import math
import os
import sys
from dataclasses import replace

import pytest
import test_trtllm
import torch
from rollout_models import CONFIGS, EOS, decode, engine, prompt, random_model, request, vllm_client
from transformers import AutoConfig

from azr_nemo.errors import UserError
from azr_nemo.rollout import ROLLOUTS, make_rollout
from azr_nemo.rollout.engine import SampleRequest
from azr_nemo.rollout.transformers import TransformersRollout
from azr_nemo.settings.schema import RolloutConfig

REAL = pytest.mark.skipif("AZR_VLLM_TESTS" not in os.environ, reason="a real vLLM server: `make test-vllm`")
MARKS = {"vllm": REAL, "trtllm": pytest.mark.slow}  # the stand-in decodes a prompt at a time
pytestmark = pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in ROLLOUTS])
REQUESTS = [
    request(9),
    request(30, samples=3),
    request(3, samples=1, tokens=40),
    request(30, seed=1, temperature=0.6),
    request(17, tokens=1),
]


@pytest.fixture(autouse=True)
def without_tensorrt(name, monkeypatch):
    if name == "trtllm":
        test_trtllm.install(monkeypatch, DecodingLLM)
        # A test's engines stand for those of several processes, and each has a Ray of its own.
        monkeypatch.setattr(sys.modules["ray"], "init", lambda **given: setattr(test_trtllm.Ray, "running", given))


class DecodingLLM(test_trtllm.AsyncLLM):
    """The stand-in for TensorRT-LLM, which answers with what a model says that has the weights it was handed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shape = AutoConfig.from_pretrained(kwargs["model"])
        self.model, self.fitted = None, None

    def answer(self, prompt, params):
        weights = self.weights["GPU-0"]
        if self.fitted is not weights:
            self.model, self.fitted = TransformersRollout(self.shape, torch.float32, [], torch.device("cpu"), 64), weights
            self.model.refit(weights.items())
        names = ("temperature", "seed", "stop_token_ids", "top_p", "min_p")
        asked = {name: params[name] for name in names} | {"top_k": params["top_k"] if params["temperature"] else 0}
        ((sample,),) = self.model.generate([SampleRequest(tuple(prompt), 1, params["max_tokens"], **asked)])
        return list(sample.token_ids), list(sample.logprobs), "stop" if sample.finished else "length"


@pytest.fixture(scope="module")
def model():
    return random_model(CONFIGS["protocol"])


def test_samples_come_in_the_order_of_the_requests_and_the_callback_hears_each_once(name, model):
    heard = {}

    def on_sample(i, k, sample):
        assert (i, k) not in heard
        heard[i, k] = sample

    samples = engine(name, model, rows=4).generate(REQUESTS, on_sample)
    assert [len(group) for group in samples] == [r.samples for r in REQUESTS]
    assert heard == {(i, k): sample for i, group in enumerate(samples) for k, sample in enumerate(group)}


def test_a_sample_ends_with_any_end_token_or_at_its_own_length_limit(name, model):
    samples = engine(name, model).generate([request(5, samples=20, tokens=30, temperature=1.5), request(6, samples=5, tokens=4)])
    for group, limit in zip(samples, (30, 4), strict=True):
        for sample in group:
            assert len(sample.logprobs) == len(sample.token_ids) <= limit
            assert not set(sample.token_ids[:-1]) & set(EOS)
            assert sample.finished == (sample.token_ids[-1] in EOS)
            assert sample.finished or len(sample.token_ids) == limit
    assert {sample.token_ids[-1] for sample in samples[0] if sample.finished} == set(EOS)
    assert not all(sample.finished for sample in samples[0])


def test_without_end_tokens_every_sample_has_the_full_length(name, model):
    samples = engine(name, model, eos=()).generate([request(5, samples=8, tokens=20)])
    assert [(len(sample.token_ids), sample.finished) for sample in samples[0]] == [(20, False)] * 8


@pytest.mark.parametrize(
    "stops", [{"stop": ("ea", "acc")}, {"stop": ("yzb",)}, {"stop_token_ids": (8, 30)}, {"stop": ("e",), "stop_token_ids": (9,)}]
)
def test_a_sample_ends_with_the_token_that_completes_its_first_stop(name, model, stops):
    free = request(5, samples=12, tokens=25, temperature=1.5)
    whole, held = engine(name, model).generate([free, replace(free, **stops)])
    ended_by_stop = 0
    for sample, shorter in zip(whole, held, strict=True):
        ids = sample.token_ids
        texts = [decode(ids[: end + 1]) for end in range(len(ids))]
        first = next(
            (
                end
                for end, text in enumerate(texts)
                if ids[end] in stops.get("stop_token_ids", ()) or any(string in text for string in stops.get("stop", ()))
            ),
            None,
        )
        ended_by_stop += first is not None
        assert shorter.token_ids == (ids if first is None else ids[: first + 1])
        assert shorter.finished == (first is not None or sample.finished)
        assert len(shorter.logprobs) == len(shorter.token_ids)
    assert 0 < ended_by_stop < 12 or len(stops) == 2


def test_stops_that_cannot_be_are_refused(name, model):
    with pytest.raises(ValueError, match="a character at least"):
        engine(name, model).generate([SampleRequest((3,), 1, 1, 1.0, 0, stop=("a", ""))])
    if name == "vllm":
        made = vllm_client(model.config, EOS, None)
    else:
        device = torch.device("cuda", 0) if name == "trtllm" else torch.device("cpu")
        made = make_rollout(RolloutConfig(name=name), model.config, torch.float32, [1], device)
    made.refit(model.named_parameters())
    with pytest.raises(ValueError, match="without `decode`"):
        made.generate([SampleRequest((3,), 1, 1, 1.0, 0, stop=("a",))])


def test_samples_do_not_depend_on_the_rest_of_the_batch(name, model):
    together = engine(name, model).generate(REQUESTS)
    alone = [engine(name, model, rows=1).generate([r])[0] for r in REQUESTS]
    assert [[s.token_ids for s in group] for group in alone] == [[s.token_ids for s in group] for group in together]


def test_the_seed_decides_and_samples_of_a_request_differ(name, model):
    rollout = engine(name, model)
    first, again, other = (rollout.generate([SampleRequest(prompt(8), 4, 20, 1.0, seed)])[0] for seed in (5, 5, 6))
    assert first == again
    assert len({sample.token_ids for sample in first + other}) == 8


def test_several_engines_can_share_the_samples_of_one_prompt(name, model):
    rollout = engine(name, model)
    (whole,) = rollout.generate([SampleRequest(prompt(8), 4, 20, 1.0, 5)])
    parts = rollout.generate([SampleRequest(prompt(8), 1, 20, 1.0, 5), SampleRequest(prompt(8), 3, 20, 1.0, 5, first=1)])
    assert [sample.token_ids for part in parts for sample in part] == [sample.token_ids for sample in whole]


def test_log_probabilities_are_the_models_own_at_the_sampling_temperature(name, model):
    if name == "trtllm":
        pytest.skip("TensorRT-LLM's are of temperature 1, whatever a stand-in says")
    requests = [request(9, temperature=0.7), request(20, temperature=0.0), request(5, temperature=1.0)]
    for r, group in zip(requests, engine(name, model).generate(requests), strict=True):
        for sample in group:
            ids = torch.tensor([r.prompt_ids + sample.token_ids])
            with torch.no_grad():
                logits = model(ids).logits[0, len(r.prompt_ids) - 1 : -1]
            expected = torch.log_softmax(logits / (r.temperature or 1.0), -1).gather(1, ids[0, len(r.prompt_ids) :, None])[:, 0]
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}, {"top_p": 0.8, "top_k": 9, "min_p": 0.02}])
def test_only_the_likeliest_are_drawn_and_log_probabilities_are_of_what_is_left(name, model, cut):
    if name == "trtllm":
        pytest.skip("TensorRT-LLM's log-probabilities are of the whole distribution, whatever a stand-in says")
    r = replace(request(9, samples=10, temperature=0.8), **cut)
    for sample in engine(name, model).generate([r])[0]:
        ids = torch.tensor([r.prompt_ids + sample.token_ids])
        with torch.no_grad():
            rows = torch.softmax(model(ids).logits[0, len(r.prompt_ids) - 1 : -1] / 0.8, -1)
        for probabilities, token, logprob in zip(rows, sample.token_ids, sample.logprobs, strict=True):
            left = probabilities * (probabilities >= cut.get("min_p", 0) * probabilities.max())
            likeliest = left.sort(descending=True)
            left[likeliest.indices[cut.get("top_k", len(left)) :]] = 0
            shares = (left / left.sum()).sort(descending=True)
            nucleus = shares.indices[: int((shares.values.cumsum(0) < cut.get("top_p", 1) - 1e-6).sum()) + 1]
            assert token in nucleus
            assert abs(logprob - float(torch.log(probabilities[token] / probabilities[nucleus][left[nucleus] > 0].sum()))) < 1e-4


def test_greedy_stays_greedy_whatever_is_cut_off(name, model):
    r = request(12, samples=1, tokens=10, temperature=0.0)
    whole, cut = engine(name, model).generate([r, replace(r, top_p=0.1, top_k=1, min_p=0.9)])
    assert cut[0].token_ids == whole[0].token_ids


def test_every_sample_says_which_weights_drew_it(name, model):
    rollout = engine(name, model)
    for version in (3, 4):
        rollout.refit(model.named_parameters(), version)
        told = []
        samples = rollout.generate(REQUESTS, lambda i, k, sample, told=told: told.append(sample.weight_version))
        assert {sample.weight_version for group in samples for sample in group} == {version} == set(told)


def test_temperature_zero_is_the_greedy_text_of_transformers(name, model):
    r = request(12, samples=2, tokens=25, temperature=0.0)
    expected = model.generate(
        torch.tensor([r.prompt_ids]),
        attention_mask=torch.ones(1, 12),
        do_sample=False,
        max_new_tokens=25,
        eos_token_id=list(EOS),
        pad_token_id=0,
    )[0, 12:]
    first, second = engine(name, model).generate([r])[0]
    assert first == second
    assert list(first.token_ids) == expected.tolist()


def test_a_refit_changes_the_samples_and_later_changes_of_the_trainers_tensors_do_not(name, model):
    rollout = engine(name, model)
    before = rollout.generate([request(9)])
    other = random_model(CONFIGS["protocol"], seed=1)
    rollout.refit(other.named_parameters())
    after = rollout.generate([request(9)])
    assert after == engine(name, other).generate([request(9)])
    assert after != before
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert rollout.generate([request(9)]) == after


def test_a_tied_head_may_come_or_stay_away(name, model):
    rollout = engine(name, model)
    expected = rollout.generate(REQUESTS)
    rollout.refit(model.state_dict().items())
    assert rollout.generate(REQUESTS) == expected


def test_missing_weights_are_listed(name, model):
    if name == "trtllm":
        pytest.skip("TensorRT-LLM's own loader names them")
    rollout = engine(name, model)
    lacking = {"model.norm.weight", "model.layers.1.mlp.up_proj.weight"}
    with pytest.raises(UserError) as error:
        rollout.refit((n, p) for n, p in model.named_parameters() if n not in lacking)
    assert all(n in str(error.value) for n in lacking)
    with pytest.raises(RuntimeError, match="refit"):
        rollout.generate([request(5)])


@pytest.mark.parametrize(("weight", "shape"), [("model.layers.7.mlp.up_proj.weight", (48, 32)), ("model.norm.weight", (31,))])
def test_a_weight_that_does_not_fit_is_named(name, model, weight, shape):
    if name == "trtllm":
        pytest.skip("TensorRT-LLM's own loader names it")
    with pytest.raises(UserError, match=weight):
        engine(name, model).refit([(weight, torch.zeros(shape))])


def test_diverged_weights_are_reported_as_such(name):
    model = random_model(CONFIGS["protocol"])
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(UserError, match="diverged"):
        engine(name, model).generate([request(5)])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_ids": ()}, {"samples": 0}, {"max_new_tokens": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1},
        {"min_p": -0.1}, {"min_p": 1.5},
    ],
)  # fmt: skip
def test_an_impossible_request_is_refused(name, model, change):
    valid = {"prompt_ids": (3,), "samples": 1, "max_new_tokens": 1, "temperature": 1.0, "seed": 0}
    with pytest.raises(ValueError, match="request"):
        engine(name, model).generate([SampleRequest(**(valid | change))])


def test_no_requests_give_no_samples(name, model):
    assert engine(name, model).generate([]) == []


def test_an_unknown_name_is_refused_with_the_choices(name):
    with pytest.raises(UserError, match=f"sglang.*{name}"):
        make_rollout(RolloutConfig(name="sglang"), CONFIGS["llama"], torch.float32, [1], torch.device("cpu"))
