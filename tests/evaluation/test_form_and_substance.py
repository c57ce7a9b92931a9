"""A gain is split into answers that became well-formed and well-formed ones that became right, and the two add up."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.form_and_substance import split, splits_of, table, well_formed

OUTCOMES = {
    "right": {"right": True, "reason": "right", "finished": True},
    "wrong": {"right": False, "reason": "wrong_value", "finished": True},
    "raises": {"right": False, "reason": "error", "finished": True},
    "unread": {"right": False, "reason": "no_answer", "finished": True},
    "cut off": {"right": False, "reason": "wrong_value", "finished": False},
}


def rows(outcomes: list[str], samples: int = 1) -> list[dict]:
    return [{"id": f"item{i // samples}", "sample": i % samples, **OUTCOMES[name]} for i, name in enumerate(outcomes)]


def test_only_an_answer_that_ended_and_gave_a_value_is_well_formed():
    assert [well_formed(OUTCOMES[name]) for name in OUTCOMES] == [True, True, False, False, False]


def test_a_model_that_learnt_to_write_calls_that_run_gained_form_alone():
    found = split(rows(["raises", "cut off", "unread", "right", "wrong"]), rows(["right", "right", "wrong", "right", "wrong"]))
    assert (found.became, found.lost, found.both) == (3, 0, 2)
    assert (found.right_first, found.right_second) == (1, 1)
    assert found.form == pytest.approx(0.4)
    assert (found.substance, found.low, found.high) == (0, 0, 0)


def test_well_formed_answers_that_became_right_are_substance():
    found = split(rows(["wrong"] * 60 + ["right"] * 40), rows(["right"] * 30 + ["wrong"] * 30 + ["right"] * 40))
    assert (found.right_first, found.right_second, found.form) == (40, 70, 0)
    assert found.substance == pytest.approx(0.3)
    assert 0.15 < found.low < 0.3 < found.high < 0.45


@given(st.lists(st.tuples(st.sampled_from(sorted(OUTCOMES)), st.sampled_from(sorted(OUTCOMES))), min_size=1, max_size=30))
def test_form_and_substance_add_up_to_the_difference(pairs):
    found = split(rows([one for one, _ in pairs]), rows([other for _, other in pairs]), draws=50)
    assert found.form + found.substance == pytest.approx(found.second - found.first)
    assert found.low - 1e-9 <= found.high


def test_samples_of_an_item_are_drawn_together():
    one, other = rows(["wrong", "wrong"] * 40, samples=2), rows(["right", "right"] * 20 + ["wrong", "wrong"] * 20, samples=2)
    both, single = split(one, other), split(rows(["wrong"] * 40), rows(["right"] * 20 + ["wrong"] * 20))
    assert both.items == 40
    assert (both.substance, both.low, both.high) == (single.substance, single.low, single.high)


def test_two_evaluations_are_split_where_both_have_answers(tmp_path):
    for name, outcomes in (("a", ["raises", "wrong"]), ("b", ["right", "right"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cruxeval_input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(outcomes)))
    found = splits_of(tmp_path / "a", tmp_path / "b", ["cruxeval_input", "math500"])
    assert list(found) == ["cruxeval_input"]
    assert "| cruxeval_input | 1 | 0 | 1 | 0, 1 | +1.000 | +0.500 | +0.500 [" in table(found)
    with pytest.raises(ValueError, match="both sides"):
        split(rows(["right"]), [])
