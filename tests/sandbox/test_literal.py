"""What counts as a literal is decided by exact type, before any code of the value's own runs."""

import ast
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.sandbox.local.jailed.literal import Refused, literal_text

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
)  # fmt: skip
hashable = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
literals = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(hashable, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
    ),
    max_leaves=20,
)


def status(value: object, longest: int = 8000) -> str:
    with pytest.raises(Refused) as caught:
        literal_text(value, longest)
    return caught.value.status


@given(literals)
def test_every_literal_is_written_as_its_repr_and_reads_back_equal(value):
    text = literal_text(value, 100_000)
    assert text == repr(value)
    assert ast.literal_eval(text) == value


class Liar:
    def __repr__(self) -> str:
        raise AssertionError("the repr of a stranger ran")

    __hash__ = object.__hash__


class LyingList(list):
    __repr__ = Liar.__repr__


class LyingInt(int):
    __repr__ = Liar.__repr__


class ClaimsToBeList(type):
    def __eq__(cls, other: object) -> bool:
        return True

    def __hash__(cls) -> int:
        return hash(list)


class Chameleon(metaclass=ClaimsToBeList):
    __repr__ = Liar.__repr__


@pytest.mark.parametrize(
    "value",
    [
        Liar(),
        LyingList(),
        LyingInt(3),
        Chameleon(),
        [1, {2: (Liar(),)}],
        {Liar(): 1},
        {Liar()},
        frozenset({1}),
        bytearray(b"a"),
        range(3),
        len,
        ...,
    ]
    + [math.nan, math.inf, -math.inf, complex(0, math.nan), complex(math.inf, 0), [1.0, math.nan]],
    ids=lambda value: f"{type(value).__name__}",
)
def test_anything_else_is_not_literal_and_its_repr_never_runs(value):
    assert status(value) == "not_literal"


def test_the_name_of_a_strangers_class_is_told_without_asking_it():
    class Name(str):
        __getitem__ = __format__ = __str__ = Liar.__repr__

    class Stranger:
        pass

    Stranger.__name__ = Name("Stranger" * 50)
    with pytest.raises(Refused, match=r"of type (Stranger){10}'"):
        literal_text([Stranger()], 8000)


def test_the_longest_text_is_accepted_and_one_character_more_is_not():
    assert literal_text("x" * 98, 100) == repr("x" * 98)
    assert status("x" * 99, 100) == "output_too_large"


def test_escapes_count_as_they_are_written():
    assert status("\n" * 60, 100) == "output_too_large"


def test_a_list_that_holds_itself_and_one_that_doubles_at_every_level_end_quickly():
    cycle: list = []
    cycle.append(cycle)
    assert status(cycle) == "not_literal"
    doubling: list = []
    for _ in range(70):
        doubling = [doubling, doubling]
    assert status(doubling) == "output_too_large"


def test_nesting_is_refused_before_readers_fail_on_it():
    def nested(depth: int) -> list:
        value: list = []
        for _ in range(depth):
            value = [value]
        return value

    assert ast.literal_eval(literal_text(nested(79), 8000)) == nested(79)
    assert status(nested(100_000)) == "not_literal"


def test_an_int_that_the_trainer_could_not_read_back_is_too_large():
    assert ast.literal_eval(literal_text(10**4290, 8000)) == 10**4290
    assert status(10**4400) == "output_too_large"
    assert status([-(10**5000)]) == "output_too_large"


def test_a_lone_surrogate_is_written_in_ascii():
    assert literal_text("\ud800", 100) == r"'\ud800'"
