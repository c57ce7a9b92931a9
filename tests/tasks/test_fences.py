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


CODE = "def f(x):\n    if x:\n\n        return 1\n    return 2"


def indented(text: str, by: str) -> str:
    return "\n".join(by + line if line else line for line in text.split("\n"))


@pytest.mark.parametrize("by", ["", " ", "  ", "   "])
def test_the_indentation_of_the_opener_is_taken_off_the_content(by):
    assert tagged(indented(fence("python", CODE), by), "python") == [CODE]


@pytest.mark.parametrize(
    ("marker", "by"),
    [
        ("- So:", "  "), ("* So:", "   "), ("1. So:", "   "), ("1. So:", "    "), ("10) So:", "    "), ("-   So:", "    "), ("1. So:\n", "   "),
        ("- a\n  - b", "    "), ("1. a\n   2. b\n      - c", "        "), ("- a\n\n  more of it\n", "  "), ("+ a\nlazily continued", "  "),
        ("- So:", "\t"), ("> quoted", "> "), ("> - in it", ">   "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tag", ["python", "input"])
def test_a_fence_in_a_list_item_or_a_quote_holds_what_it_holds_outside(marker, by, tag):
    body = "\n".join(by + line for line in fence(tag, CODE).rstrip("\n").split("\n"))
    assert fences(f"{marker}\n{body}\nDone.") == [Fence(tag, CODE)]


def test_a_fence_may_stand_right_behind_the_marker():
    assert fences("1. ```python\n   x = 1\n     y\n   ```\n2. b") == [Fence("python", "x = 1\n  y")]


def test_four_columns_outside_a_list_are_code_and_no_fence():
    assert fences("    ```python\n    x\n    ```") == fences("text\n\t```python\nx") == []
    assert fences("- a\n\nno more of the list\n\n    ```python\n    x\n    ```") == []


def test_ticks_that_are_indented_like_code_close_nothing():
    inside = 'def f(x):\n    """\n    ```\n    1\n    ```\n    """\n    return x'
    assert tagged(f"```python\n{inside}\n```", "python") == [inside]
    assert tagged("1. a\n" + indented(f"```python\n{inside}\n```", "   "), "python") == [inside]


def test_lines_that_a_model_forgot_to_indent_belong_to_the_block():
    assert fences("- a\n  ```input\n1,\n 2\n   3\n```") == [Fence("input", "1,\n2\n 3")]
