"""Two evaluations are compared item by item."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.statistics import compare

GROUPS = {"math500": "math", "aime24": "math", "humaneval": "code", "mbpp": "code", "cruxeval": "reasoning"}
SCORES = st.dictionaries(
    st.sampled_from(sorted(GROUPS)),
    st.dictionaries(st.integers(0, 30).map(str), st.integers(0, 4).map(lambda n: n / 4), min_size=1),
    min_size=1,
)


def row(comparison, name):
    return next(row for row in comparison.rows if row.name == name)


@given(SCORES)
def test_identical_results_do_not_differ(scores):
    for found in compare(scores, scores, GROUPS, draws=200).rows:
        assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
        assert found.first == found.second


@given(SCORES, SCORES)
def test_exchanging_the_sides_turns_every_sign(first, second):
    one, other = compare(first, second, GROUPS, draws=200), compare(second, first, GROUPS, draws=200)
    assert {found.name for found in one.rows} == {found.name for found in other.rows}
    for found in one.rows:
        turned = row(other, found.name)
        assert turned.difference == pytest.approx(-found.difference, abs=1e-12)
        assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
        assert (turned.first, turned.second) == pytest.approx((found.second, found.first))
        assert (turned.only_first, turned.only_second) == (found.only_second, found.only_first)
        assert turned.p == pytest.approx(found.p)


@given(SCORES, SCORES)
def test_every_figure_lies_where_it_can(first, second):
    for found in compare(first, second, GROUPS, draws=200).rows:
        assert 0 <= found.first <= 1
        assert found.low <= found.high
        assert -1 <= found.low <= 1
        assert 0 < found.p <= 1


def test_a_clear_gain_has_a_small_p_and_an_interval_above_0_and_noise_has_not():
    rng = np.random.default_rng(0)
    base = {str(i): float(rng.random() < 0.3) for i in range(300)}
    better = {item: max(score, float(rng.random() < 0.3)) for item, score in base.items()}
    shuffled = dict(zip(base, rng.permutation(list(base.values())), strict=True))
    gain = row(compare({"math500": base}, {"math500": better}, GROUPS), "math500")
    assert gain.low > 0
    assert gain.p < 0.001
    noise = row(compare({"math500": base}, {"math500": shuffled}, GROUPS), "math500")
    assert noise.low < 0 < noise.high
    assert noise.p > 0.05


def test_pairing_sees_a_difference_that_two_separate_means_would_not():
    base = {str(i): float(i < 100) for i in range(200)}
    better = base | {str(i): 1.0 for i in range(100, 110)}
    found = row(compare({"math500": base}, {"math500": better}, GROUPS), "math500")
    assert found.difference == pytest.approx(0.05)
    assert found.low > 0  # unpaired, the standard error would be 0.05


def test_the_p_value_is_that_of_the_sign_of_the_difference():
    """Of n items one differs, so a resample shows no difference with the chance (1 - 1/n)^n."""
    n = 50
    base = {str(i): 0.0 for i in range(n)}
    found = row(compare({"math500": base}, {"math500": base | {"0": 1.0}}, GROUPS, draws=40_000), "math500")
    assert found.p == pytest.approx(2 * (1 - 1 / n) ** n, abs=0.02)


def test_averages_are_those_of_the_original_s_table():
    first = {
        "humaneval": {"a": 1.0, "b": 0.0},
        "mbpp": {"a": 1.0},
        "math500": {"a": 0.0},
        "aime24": {"a": 1.0, "b": 0.0},
        "cruxeval": {"a": 0.0},
    }
    second = {name: dict.fromkeys(items, 1.0) for name, items in first.items()}
    comparison = compare(first, second, GROUPS, draws=200)
    assert [found.name for found in comparison.rows] == [*first, "Code avg", "Math avg", "Total avg"]
    assert (row(comparison, "Code avg").first, row(comparison, "Math avg").first, row(comparison, "Total avg").first) == (0.75, 0.25, 0.5)
    assert row(comparison, "Total avg").second == 1.0
    assert row(comparison, "Total avg").items == 6


def test_without_one_group_there_is_no_total_and_that_is_said():
    comparison = compare({"math500": {"a": 1.0}}, {"math500": {"a": 0.0}}, GROUPS, draws=50)
    assert [found.name for found in comparison.rows] == ["math500", "Math avg"]
    assert comparison.notes == ("Total avg needs suites of code and of maths.",)


def test_items_and_suites_of_one_side_only_are_counted_and_said():
    first = {"math500": {"a": 1.0, "b": 0.0}, "aime24": {"a": 1.0}, "mbpp": {"x": 1.0}}
    second = {"math500": {"b": 1.0, "c": 0.0, "d": 0.0}, "humaneval": {"a": 1.0}, "mbpp": {"y": 1.0}}
    comparison = compare(first, second, GROUPS, names=("base", "trained"), draws=50)
    found = row(comparison, "math500")
    assert (found.items, found.only_first, found.only_second, found.first, found.second) == (1, 1, 2, 0.0, 1.0)
    assert comparison.notes[:6] == (
        "math500: 1 item is only in base and was left out.",
        "math500: 2 items are only in trained and were left out.",
        "aime24 is only in base and was not compared.",
        "mbpp: 1 item is only in base and was left out.",
        "mbpp: 1 item is only in trained and was left out.",
        "mbpp has no item in common and was not compared.",
    )
    assert "humaneval is only in trained and was not compared." in comparison.notes


def test_what_else_is_compared_does_not_change_a_suite_s_figures_and_the_seed_does():
    rng = np.random.default_rng(1)
    first, second = ({name: {str(i): float(rng.random() < 0.5) for i in range(40)} for name in ("math500", "mbpp")} for _ in range(2))
    alone = compare({"math500": first["math500"]}, second, GROUPS)
    together = compare(first, second, GROUPS)
    assert row(alone, "math500") == row(together, "math500")
    assert row(compare(first, second, GROUPS, seed=1), "math500") != row(together, "math500")


def test_the_markdown_is_a_table_and_the_json_reads_back():
    comparison = compare({"math500": {"a": 1.0, "b": 0.0}}, {"math500": {"a": 1.0, "b": 1.0, "c": 1.0}}, GROUPS, ("a|b", "after"), draws=50)
    lines = comparison.as_markdown().splitlines()
    assert lines[0] == "| suite | items | a\\|b | after | difference | 95% | p |"
    assert lines[2].startswith("| math500 | 2 | 50.0 | 100.0 | +50.0 | ")
    assert "math500: 1 item is only in after and was left out." in lines
    body = json.loads(comparison.as_json())
    assert body["rows"][0]["difference"] == 0.5
    assert body["names"] == ["a|b", "after"]
