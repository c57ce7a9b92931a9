"""Literals are compared as values, without evaluating anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.tasks.parsing import MAX_LITERAL, NotLiteral, read_literal, same_literal

ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.binary()
LITERALS = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(ATOMS, inner, max_size=3)
)


@given(LITERALS)
def test_a_literal_equals_its_own_repr(value):
    if "\\ud" not in repr(value):  # lone surrogates
        assert same_literal(f" {value!r}\n", repr(value))


@pytest.mark.parametrize(
    ("answer", "gold"), [("1", "1.0"), ("1", "True"), ("{1, 2}", "{2, 1}"), ("'a' 'b'", "'ab'"), ("(1,2)", "(1, 2)"), ("1+2j", "(1+2j)")]
)
def test_equal_values_are_the_same(answer, gold):
    assert same_literal(answer, gold)


DEEP = "[" * 5000 + "]" * 5000
WRONG = [
    ("3", "'3.0'"), ("1+1", "2"), ("[1]", "(1,)"), ("'a'", "'b'"), ("abs(-1)", "1"), ("a", "'a'"), ("", "''"), ("nan", "nan"),
    ("1 2", "1"), ("\ud800", "1"), ("1\x00", "1"), ("{[]: 1}", "1"), (DEEP, DEEP), ("-" * 5000 + "1", "1"), ("1" * 5000, "1" * 5000),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), WRONG, ids=range(len(WRONG)))
def test_other_values_and_no_values_are_not_the_same(answer, gold):
    assert same_literal(answer, gold) is False


@pytest.mark.parametrize("text", [DEEP, "1" * (MAX_LITERAL + 1), "f()", "[].append(1)", "x"])
def test_what_is_no_literal_is_one_kind_of_error(text):
    with pytest.raises(NotLiteral):
        read_literal(text)
