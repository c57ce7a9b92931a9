"""The final answer is found where the original's evaluation finds it, in time linear in the response."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.evaluation.maths.grader import final_answer, last_box, tidy


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("a </think> <answer> 42 </answer>", "42"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<answer>so it is \\boxed{\\frac{1}{2}}.</answer>", "\\frac{1}{2}"),
        ("\\boxed{1} <answer>2</answer>", "2"),
        ("<answer>7", "7"),
        ("<answer></answer>", ""),
        ("<answer>\\boxed{3</answer>", ""),
        ("first \\boxed{1}, then \\boxed{2}", "2"),
        ("The roots are $\\boxed{3}$ and $\\boxed{8}$.", "3, 8"),
        ("<answer>$\\boxed{(1,4)}$, \\(\\boxed{(5,9)}\\)</answer>", "(1,4), (5,9)"),
        ("\\boxed{1} paper and \\boxed{2} bins", "1, 2"),
        ("$y = \\boxed{1}$, \\text{ and } $z = \\boxed{2}$", "1, 2"),
        ("\\boxed{1} is a step. \\boxed{2}", "2"),
        ("It is $\\boxed{1}$. $\\boxed{1}$", "1"),
        ("$\\boxed{1}$, $\\boxed{1}$", "1"),
        ("$\\boxed{1}$\n\n$\\boxed{2}$", "2"),
        ("\\boxed{1} so that with the other half \\boxed{2}", "2"),
        ("\\boxed{1 and \\boxed{2}", "2"),
        ("<answer>3</answer> I hope the <answer> helps <answer></answer>", "3"),
        ("<answer>\n```\n3\n```\n</answer>", "3"),
        ("\\boxed{\\left\\{ x : x > \\frac{1}{2} \\right\\}}", "\\left\\{ x : x > \\frac{1}{2} \\right\\}"),
        ("\\boxed{\\left\\{ 1 \\right.} done", "\\left\\{ 1 \\right."),
        ("\\boxed{1} and then \\boxed{2", ""),
        ("\\fbox{9}", "9"),
        ("$\\boxed 5$ it is", "5"),
        ("so \\[ x = 4 \\] and \\[ y = 5 \\]", "x = 4"),
        ("the answer is 4", ""),
        ("\\[ never closed", ""),
        ("", ""),
    ],
)
def test_the_answer_tag_wins_over_the_last_box_over_the_first_display(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" $x$. ", "x"), ("\\( 1 \\)", "1"), ("\\[\\frac12\\]", "\\frac12"), ("$$5$$", "5"), ("$1$, $2$", "$1$, $2$"),
        ("a\n b", "a b"), ("1, 2, ...", "1, 2, ..."), ("$", "$"), ("3.", "3"),
    ],
)  # fmt: skip
def test_delimiters_full_stops_and_line_breaks_do_not_belong_to_an_answer(text, answer):
    assert tidy(text) == answer


@given(st.text(alphabet="{}\\ab$.[]() 1"))
def test_a_box_holds_what_was_put_into_it(inside):
    depth = 0
    escaped = False
    for character in inside:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            depth += (character == "{") - (character == "}")
        if depth < 0:
            return
    if depth == 0 and not escaped:
        assert last_box(f"text \\boxed{{{inside}}} more") == inside


@given(st.text(alphabet="<answer>/\\boxed{}[]$ 1", max_size=60))
def test_any_response_has_an_answer_or_an_empty_one_and_tidying_twice_changes_nothing(response):
    answer = final_answer(response)
    assert tidy(answer) == answer


@pytest.mark.parametrize("part", ["\\[", "\\boxed{", "\\boxed", "<answer>", "{", "$", "\\fbox{}", ". ", "<answer>\\boxed{", "$$ "])
def test_a_long_response_of_openings_is_read_in_no_time(part):
    start = time.process_time()
    final_answer(part * 200_000)
    assert time.process_time() - start < 2.0
