"""A value has one text, whatever order a hash seed gave its parts, and texts agree when their values are equal."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.sandbox.executor import Outcome, Request, Status, confirmed
from azr_nemo.sandbox.local.jailed.canonical import agreed_text, canonical_text

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.binary(max_size=3)
)
KEYS = st.recursive(SCALARS, lambda parts: st.tuples(parts, parts), max_leaves=3)
VALUES = st.recursive(
    SCALARS, lambda parts: st.lists(parts) | st.dictionaries(KEYS, parts) | st.sets(KEYS) | st.tuples(parts), max_leaves=8
)


@given(VALUES)
def test_the_canonical_text_states_the_value_whatever_is_sorted(value):
    for text in (canonical_text(value), canonical_text(value, sort_dicts=True)):
        assert ast.literal_eval(text) == value
        assert canonical_text(ast.literal_eval(text), text != canonical_text(value)) == text
    assert agreed_text(canonical_text(value), canonical_text(value, sort_dicts=True)) is not None


@pytest.mark.parametrize(
    ("one", "two", "agreed"),
    [
        ("{'a': {1, 2}}", "{'a': {1, 2}}", "{'a': {1, 2}}"),
        ("{'b': 1, 'a': 2}", "{'b': 1, 'a': 2}", "{'b': 1, 'a': 2}"),  # filled in this order by every run
        ("{'b': 1, 'a': 2}", "{'a': 2, 'b': 1}", "{'a': 2, 'b': 1}"),
        ("[{'b': {'d': 1, 'c': 2}}]", "[{'b': {'c': 2, 'd': 1}}]", "[{'b': {'c': 2, 'd': 1}}]"),
        ("1", "True", "1"), ("1.0", "1", "1"), ("-0.0", "0.0", "-0.0"), ("{1: 2}", "{True: 2.0}", "{1: 2}"),
        ("1", "2", None), ("(1,)", "[1]", None), ("'1'", "1", None), ("[1, 2]", "[2, 1]", None), ("{1}", "{1, 2}", None), ("b'a'", "'a'", None),
    ],
)  # fmt: skip
def test_texts_agree_as_their_values_do_in_either_order(one, two, agreed):
    assert agreed_text(one, two) == agreed_text(two, one) == agreed
    verdict = confirmed(Outcome(Status.OK, one), Outcome(Status.OK, two))
    assert (verdict.status, verdict.value) == ((Status.OK, agreed) if agreed else (Status.NONDETERMINISTIC, None))


def test_sets_are_written_in_ascending_order():
    texts = [canonical_text({"x": parts}) for parts in ({10, 9, 2.5}, set("cab"), {"a", 1, None, (2,)}, set())]
    assert texts == ["{'x': {2.5, 9, 10}}", "{'x': {'a', 'b', 'c'}}", "{'x': {None, 1, 'a', (2,)}}", "{'x': set()}"]


LETTERS = "'abcdefghijk'"
EQUAL = {
    "return set(x)": "{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k'}",
    "return [{'a': (1, set(x[:3]))}]": "[{'a': (1, {'a', 'b', 'c'})}]",
    "return {c: ord(c) for c in set(x)}": str({c: ord(c) for c in "abcdefghijk"}),
    "return {'z': 1, 'a': 2}": "{'z': 1, 'a': 2}",
}
DIFFERENT = (
    "return list(set(x))",
    "return ''.join(set(x))",
    "return str(set(x))",
    "return {i: c for i, c in enumerate(set(x))}",
    "return hash(x)",
)


def test_equal_values_of_all_hash_seeds_are_deterministic_and_have_one_text(pool):
    requests = [Request(f"def f(x):\n    {body}", (LETTERS,), deterministic=True) for body in (*EQUAL, *DIFFERENT)]
    found = [outcome for (outcome,) in pool.run(requests)]
    assert [outcome.value for outcome in found[: len(EQUAL)]] == list(EQUAL.values())
    assert {outcome.status for outcome in found[len(EQUAL) :]} == {Status.NONDETERMINISTIC}
