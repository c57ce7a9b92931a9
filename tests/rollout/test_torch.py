"""Our own decode against `transformers`."""

import pytest
import torch
from rollout_models import CONFIGS, SIZES, engine, prompt, random_model, request
from transformers import GPT2Config, LlamaConfig, Qwen2Config

from azr_nemo.errors import UserError
from azr_nemo.rollout import make_rollout
from azr_nemo.rollout.torch import decoder as torch_model
from azr_nemo.rollout.torch import torch_rollout as torch_engine
from azr_nemo.rollout.torch.decoder import CHUNK, Cache, decode, prefill
from azr_nemo.rollout.torch.packed_weights import load_weights, read_shape
from azr_nemo.settings.schema import RolloutConfig

CPU = torch.device("cpu")
QUICK = ("llama-head_dim", "qwen3-tied")


@pytest.mark.parametrize("family", CONFIGS)
@torch.inference_mode()
def test_logits_equal_transformers_at_prefill_and_every_decode_step(family):
    model = random_model(CONFIGS[family])
    shape = read_shape(model.config)
    weights = load_weights(model.named_parameters(), shape, torch.float32, CPU)
    prompts = [prompt(70), prompt(41), prompt(9), prompt(1)]
    continuations = torch.tensor([prompt(CHUNK + 10, seed=row) for row in range(4)])
    expected = [
        model(torch.tensor([[*head, *tail]])).logits[0, len(head) - 1 :] for head, tail in zip(prompts, continuations.tolist(), strict=True)
    ]
    logits, prefixes = prefill(weights, shape, prompts)
    cache = Cache(shape.layers, shape.kv_heads, shape.head_dim, torch.float32, CPU)
    cache.rebuild([], [(prefix, 1) for prefix in prefixes])
    for step in range(continuations.shape[1]):
        torch.testing.assert_close(logits, torch.stack([rows[step] for rows in expected]), atol=1e-4, rtol=0)
        logits = decode(weights, shape, continuations[:, step], cache)
        if cache.close_column():
            cache.rebuild([0, 1, 2, 3], [])


@pytest.mark.parametrize("family", [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in CONFIGS])
def test_samples_equal_those_of_the_transformers_engine(family):
    model = random_model(CONFIGS[family])
    requests = [
        request(40, samples=4),
        request(22, tokens=90),
        request(5, samples=5, tokens=30, temperature=0.8),
        request(40, tokens=70, seed=1),
    ]
    expected = engine("transformers", model).generate(requests)
    samples = engine("torch", model, rows=5).generate(requests)
    for group, expected_group in zip(samples, expected, strict=True):
        for sample, other in zip(group, expected_group, strict=True):
            assert (sample.token_ids, sample.finished) == (other.token_ids, other.finished)
            assert sample.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_bf16_stays_close_to_the_fp32_model():
    model = random_model(CONFIGS["qwen3"])
    shape = read_shape(model.config)
    prompts = [prompt(50), prompt(20)]
    exact, _ = prefill(load_weights(model.named_parameters(), shape, torch.float32, CPU), shape, prompts)
    rounded, _ = prefill(load_weights(model.named_parameters(), shape, torch.bfloat16, CPU), shape, prompts)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_each_distinct_prompt_is_prefilled_once(monkeypatch):
    prefilled = []

    def recording(weights, shape, prompts):
        prefilled.extend(prompts)
        return prefill(weights, shape, prompts)

    monkeypatch.setattr(torch_engine, "prefill", recording)
    engine("torch", random_model(CONFIGS["llama"])).generate([request(9, samples=5), request(4, samples=3), request(9, samples=2)])
    assert prefilled == [prompt(9), prompt(4)]


def test_ended_rows_leave_and_waiting_prompts_take_their_place(monkeypatch):
    widths = []

    def recording(weights, shape, tokens, cache):
        widths.append((len(tokens), cache.capacity))
        return decode(weights, shape, tokens, cache)

    monkeypatch.setattr(torch_engine, "decode", recording)
    requests = [request(30 + n, samples=1, tokens=10 * (n % 8) + 1, seed=n) for n in range(24)]
    samples = engine("torch", random_model(CONFIGS["llama"]), rows=8, eos=()).generate(requests)
    assert [len(group[0].token_ids) for group in samples] == [r.max_new_tokens for r in requests]
    assert max(rows for rows, _ in widths) == 8
    assert widths[-1][0] < 8
    decoded = sum(r.max_new_tokens - 1 for r in requests)
    assert decoded <= sum(rows for rows, _ in widths) < 1.2 * decoded
    # Long rows leave their columns behind: the cache is never wider than its longest row needs.
    longest = max(len(r.prompt_ids) + r.max_new_tokens for r in requests)
    assert max(capacity for _, capacity in widths) <= (longest // CHUNK + 1) * CHUNK


def test_a_prefill_in_small_batches_gives_the_same_samples(monkeypatch):
    model = random_model(CONFIGS["qwen2"])
    requests = [request(length, tokens=20) for length in (50, 33, 20, 12, 3)]
    expected = engine("torch", model).generate(requests)
    monkeypatch.setattr(torch_model, "PREFILL_TOKENS", 60)
    samples = engine("torch", model).generate(requests)
    assert [[s.token_ids for s in group] for group in samples] == [[s.token_ids for s in group] for group in expected]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (GPT2Config(), "gpt2"),
        (LlamaConfig(**SIZES, mlp_bias=True), "mlp_bias"),
        (LlamaConfig(**SIZES, attention_bias=True), "attention_bias"),
        (LlamaConfig(**SIZES, hidden_act="gelu"), "hidden_act"),
        (Qwen2Config(**SIZES, use_sliding_window=True), "use_sliding_window"),
        (LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), "rope_type"),
    ],
)
def test_a_model_that_would_be_decoded_wrongly_is_refused_with_a_way_out(config, word):
    with pytest.raises(UserError, match=rf"{word}.*rollout=transformers"):
        make_rollout(RolloutConfig(name="torch"), config, torch.float32, [1], CPU)
