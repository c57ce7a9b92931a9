"""Text of a model cannot act on the terminal that shows it."""

from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.observe.text import clip, printable


@given(st.text())
def test_what_is_shown_is_printable_characters_and_newlines(text):
    assert all(char == "\n" or char.isprintable() for char in printable(text))


def test_escapes_carriage_returns_bidi_marks_and_surrogates_are_spelt_out():
    assert printable("\x1b[31m\r\x07\x9b\u202e\u200b\ud800\x00") == r"\x1b[31m\r\x07\x9b\u202e\u200b\ud800\x00"


def test_ordinary_text_stays_as_it_is():
    assert printable("def f(x):\n\treturn 'żółć 日本 🎉'") == "def f(x):\n    return 'żółć 日本 🎉'"


def test_long_text_loses_its_middle_and_says_so():
    assert clip("\n".join(map(str, range(10))), lines=4, width=9) == ["0", "1", "… 7 more lines …", "9"]


def test_long_lines_lose_their_end():
    assert clip("abcdefgh\nab", lines=5, width=4) == ["abc…", "ab"]


@given(st.text(), st.integers(1, 8), st.integers(16, 40))
def test_a_clip_never_exceeds_its_box(text, lines, width):
    shown = clip(text, lines, width)
    assert len(shown) <= lines
    assert all(len(row) <= max(width, 24) for row in shown)
