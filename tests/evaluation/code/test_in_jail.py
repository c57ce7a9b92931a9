"""What a solution returned becomes a literal, whatever it is."""

import ast
import collections
import enum
import fractions
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.code.in_jail import LONGEST, Refused, literal, seen, shortened, text

ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(KEYS) | st.frozensets(KEYS)
    ),
)


@given(VALUES)
def test_every_literal_is_read_back(value):
    assert ast.literal_eval(literal(value)) == value
    assert ast.literal_eval(literal(value, argument=True)) == value


@given(VALUES)
def test_what_is_written_in_pieces_is_what_is_written_whole(value):
    assert text(value) == shortened(literal(value))
    long = [value, "x" * LONGEST]
    assert text(long) == shortened(literal(long)) != literal(long)


def test_infinities_are_literals_and_nan_is_not():
    assert ast.literal_eval(literal([math.inf, -math.inf])) == [math.inf, -math.inf]
    with pytest.raises(Refused):
        literal([math.nan])


def test_subclasses_count_as_what_they_extend():
    point = collections.namedtuple("point", "x y")(1, 2)
    number = enum.IntEnum("number", "one two").two
    assert literal([collections.Counter("aab"), point, number]) == "[{'a': 2, 'b': 1}, (1, 2), 2]"
    assert literal(fractions.Fraction(1, 2)) == "0.5"
    assert literal(fractions.Fraction(4, 2)) == "2"


def test_objects_have_no_text_whatever_they_say_of_themselves():
    class Equal:
        def __eq__(self, other):
            return True

        def __repr__(self):
            return "42"

    class Claims(Equal):
        __class__ = property(lambda self: int)

    for value in (Equal(), [Equal()], fractions.Fraction(1, 3), range(3), iter([]), {}.keys()):
        with pytest.raises(Refused):
            literal(value)
    with pytest.raises(TypeError):
        literal(Claims())


def test_arguments_keep_the_order_of_dicts_and_outputs_do_not():
    assert literal({"b": 1, "a": 2}, argument=True) == "{'b': 1, 'a': 2}"
    assert literal({"b": 1, "a": 2}) == literal({"a": 2, "b": 1})


def test_ints_too_long_for_decimals_are_read_back():
    assert ast.literal_eval(literal(7**9000)) == 7**9000


def test_views_of_a_value():
    assert seen(iter([1, 1]), "set") == {1}
    assert [seen(value, "not_none") for value in (None, object(), False)] == [False, True, False]
    assert [seen(value, "row") for value in ((1, 2), [1])] == [[1, 2], [1]]
    assert seen(object(), "any") is None
