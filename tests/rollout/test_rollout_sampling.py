"""Seeded inverse-CDF sampling."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.rollout.sampling import BLOCK, draw, uniforms


def one(logits: list[float], uniform: float, temperature: float = 1.0) -> tuple[int, float]:
    tokens, logprobs = draw(torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64), torch.tensor([temperature]))
    return int(tokens), float(logprobs)


def test_uniforms_belong_to_a_seed_and_a_sample():
    first = uniforms(7, 3, 20)
    assert first.tolist() == uniforms(7, 3, 20).tolist()
    assert first[:5].tolist() == uniforms(7, 3, 5).tolist()
    others = [uniforms(7, 4, 20), uniforms(8, 3, 20), uniforms(3, 7, 20), uniforms(-7, 3, 20)]
    assert all(not np.isclose(first, other).any() for other in others)


def test_uniforms_are_uniform():
    drawn = np.sort(np.concatenate([uniforms(seed, k, 50) for seed in range(20) for k in range(20)]))
    assert drawn[0] >= 0
    assert drawn[-1] < 1
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand
    assert np.abs(drawn - np.arange(len(drawn)) / len(drawn)).max() < 1.95 / math.sqrt(len(drawn))


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=3 * BLOCK + 5),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0.3, 1.0, 2.5]),
)
def test_the_token_is_where_the_cumulative_distribution_passes_the_uniform(logits, uniform, temperature):
    token, logprob = one(logits, uniform, temperature)
    scores = np.array(logits, dtype=np.float64) / temperature
    distribution = np.exp(scores - scores.max())
    distribution /= distribution.sum()
    cumulative = np.concatenate([[0.0], distribution.cumsum()])
    assert cumulative[token] - 1e-5 <= uniform <= cumulative[token + 1] + 1e-5
    assert logprob == pytest.approx(math.log(distribution[token]), abs=1e-5)


@given(st.integers(1, 3 * BLOCK), st.sampled_from([0.0, 0.5, math.nextafter(1.0, 0.0), 1.0]), st.integers(0, 10**6))
def test_a_token_of_probability_zero_is_never_drawn(vocabulary, uniform, seed):
    possible = seed % vocabulary
    logits = [-math.inf] * vocabulary
    logits[possible] = 3.0
    assert one(logits, uniform) == (possible, 0.0)


def test_frequencies_follow_the_distribution_over_a_large_vocabulary():
    torch.manual_seed(0)
    logits = torch.randn(1, 49152) * 3
    logits[0, 40000] += 16
    uniform = torch.from_numpy(uniforms(1, 0, 500))
    tokens, logprobs = draw(logits.expand(500, -1), uniform, torch.ones(500))
    expected = torch.log_softmax(logits[0].double(), -1)
    torch.testing.assert_close(logprobs, expected[tokens], atol=1e-6, rtol=0)
    chance = expected.exp()[40000].item()
    assert 0.05 < chance < 0.95
    assert (tokens == 40000).double().mean().item() == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / 500))


def test_temperature_zero_takes_the_most_likely_token_and_its_untempered_log_probability():
    token, logprob = one([0.0, 2.0, 1.0], 0.999, 0.0)
    assert token == 1
    assert logprob == pytest.approx(2.0 - math.log(1 + math.e**2 + math.e), abs=1e-6)


def test_rows_of_different_temperatures_do_not_disturb_each_other():
    torch.manual_seed(1)
    logits = torch.randn(5, 300) * 4
    uniform = torch.rand(5, dtype=torch.float64)
    temperature = torch.tensor([0.0, 1.0, 0.7, 2.0, 0.0])
    tokens, logprobs = draw(logits, uniform, temperature)
    for row in range(5):
        token, logprob = draw(logits[row : row + 1], uniform[row : row + 1], temperature[row : row + 1])
        assert int(token) == int(tokens[row])
        assert float(logprob) == float(logprobs[row])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(bad):
    with pytest.raises(FloatingPointError):
        one([0.0, bad, 1.0], 0.5)
