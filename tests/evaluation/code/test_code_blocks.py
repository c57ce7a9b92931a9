"""Code is found where a response states it, whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.code.code_blocks import code_in, parses, stated


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("<think>no</think> <answer>\n```python\nx = 1\n```\n</answer>", "x = 1"),
        ("```python\nx = 0\n```\n<answer>\n```python\nx = 1\n```</answer>", "x = 1"),
        ("```python\nx = 1\n```\nrun it:\n```bash\npython x.py\n```", "x = 1"),
        ("```python\nx = 0\n```\nor\n```py\nx = 1\n```", "x = 1"),
        ("```\nx = 0\n```\nor\n```\nx = 1\n```", "x = 1"),
        ("    return 1\n", "    return 1\n"),
        ("<answer>x = 1</answer> I hope this helps", "x = 1"),
        ("<answer>x = 1</answer> I hope this <answer> helps <answer></answer>", "x = 1"),
        ("so:\n```python\nx = 1", "x = 1"),
        ('```python\nx = """\n    ```python\n    ```inner\n"""\n```', 'x = """\n    ```python\n    ```inner\n"""'),
        ("", ""),
    ],
)
def test_code_is_found(response, code):
    assert code_in(response) == code


@given(st.text())
def test_stated_code_is_found_whole(code):
    if "<answer>" not in code and "</answer>" not in code:
        assert code_in(stated(code)) == code


@given(st.text())
def test_any_text_either_parses_or_does_not(code):
    assert parses(code) in (True, False)
