"""Fences are read by line, so that what is written comes back whatever it holds."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from azr_nemo.tasks.fences import Fence, fence, fences, tagged

TEXTS = st.text() | st.text(alphabet="`~ \t\r\n\f\u2003ab")


@given(TEXTS)
@example("a\n```\nb")
@example("\f```")
@example("\u2003````")
@example("\r```")
@example("")
def test_any_text_comes_back_from_its_fence(text):
    assert fences(fence("python", text)) == [Fence("python", text)]


@given(st.lists(TEXTS, max_size=4))
def test_blocks_one_after_another_stay_apart(texts):
    assert tagged("".join(fence("input", text) for text in texts), "input") == texts


@pytest.mark.parametrize("tag", ["python", "py", "python3", "Python", "PY"])
def test_all_names_of_python_are_one(tag):
    assert tagged(f"```{tag}\nx = 1\n```", "python") == ["x = 1"]


def test_backticks_inside_a_line_close_nothing():
    assert tagged("```python\nx = '```'  # ``` here\n```", "python") == ["x = '```'  # ``` here"]


def test_backticks_inside_a_sentence_open_nothing():
    assert fences("write ```python\nhere``` or `there`") == []


def test_a_block_without_an_end_is_not_closed():
    assert fences("```input\n1") == [Fence("input", "1", closed=False)]
    assert tagged("```input\n1", "input") == []


def test_a_shorter_or_other_fence_closes_nothing():
    assert fences("````input\n```\n~~~~\n`````") == [Fence("input", "```\n~~~~")]


def test_what_follows_a_tag_is_not_part_of_it():
    assert fences("```python title=a\n1\n```") == [Fence("python", "1")]
