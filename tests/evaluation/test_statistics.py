"""pass@k is the unbiased estimator, exactly; intervals hold what they should."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.statistics import interval, pass_at_k, wilson


@st.composite
def counts(draw):
    n = draw(st.integers(1, 300))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts())
def test_pass_at_k_equals_its_closed_form(numbers):
    n, c, k = numbers
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 3), (5, 1, 5), (7, 3, 1), (4, 0, 2), (4, 4, 1)])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(n, c, k):
    draws = list(combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(draw) < c for draw in draws) / len(draws))


@given(counts())
def test_pass_at_k_lies_in_0_1_and_grows_with_k_and_with_c(numbers):
    n, c, k = numbers
    assert 0 <= pass_at_k(n, c, k) <= 1
    assert k == 1 or pass_at_k(n, c, k) >= pass_at_k(n, c, k - 1) - 1e-12
    assert c == 0 or pass_at_k(n, c, k) >= pass_at_k(n, c - 1, k) - 1e-12


def test_pass_at_k_neither_overflows_nor_loses_its_figures():
    n, c, k = 100_000, 3, 1000
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-10)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4), (0, 0, 1)])
def test_impossible_counts_are_refused(n, c, k):
    with pytest.raises(ValueError, match="expected"):
        pass_at_k(n, c, k)


def test_one_sample_an_item_gives_wilson_s_interval():
    scores = [1.0] * 8 + [0.0] * 2
    assert interval(scores) == wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)


def test_an_interval_of_nothing_right_still_has_a_width():
    low, high = interval([0.0] * 30)
    assert low == 0.0
    assert 0.05 < high < 0.2


@given(st.lists(st.integers(0, 4).map(lambda right: right / 4), min_size=1, max_size=60))
def test_an_interval_holds_its_mean_lies_in_0_1_and_is_the_same_again(scores):
    low, high = interval(scores, samples=4, draws=500)
    assert 0 <= low <= sum(scores) / len(scores) + 0.15
    assert sum(scores) / len(scores) - 0.15 <= high <= 1
    assert low <= high
    assert (low, high) == interval(scores, samples=4, draws=500)


@given(st.integers(0, 2**32))
def test_the_bootstrap_agrees_with_the_normal_interval_of_many_items(seed):
    scores = np.random.default_rng(seed).integers(0, 5, size=400) / 4
    low, high = interval(list(scores), samples=4, draws=2000)
    half = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.3 * half)


def test_items_are_drawn_whole_so_samples_of_one_item_do_not_narrow_the_interval():
    """Forty samples of ten items, each all right or all wrong, say as little as ten samples."""
    low, high = interval([1.0] * 5 + [0.0] * 5, samples=4)
    assert high - low > 0.5


def test_no_scores_have_no_interval():
    with pytest.raises(ValueError, match="at least one"):
        interval([])
