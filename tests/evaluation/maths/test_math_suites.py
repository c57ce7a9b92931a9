"""The maths suites: public rows become items, reference answers are right, wrong answers are wrong."""

import json
import re
from concurrent.futures import Future

import pytest

from azr_nemo.errors import UserError
from azr_nemo.evaluation.maths import MATH_SUITES
from azr_nemo.evaluation.suite import Item, Tools
from azr_nemo.sandbox.executor import ExecutorUnavailable

SUITES = {suite.name: suite for suite in MATH_SUITES}
REAL = ("math500", "aime24", "amc23")
NOTHING = Tools(None)  # type: ignore[arg-type]  # converting asks nothing of it


def real_items(folder, name) -> list[Item]:
    with (folder / f"{name}.jsonl").open() as file:
        return SUITES[name].convert([json.loads(line) for line in file], NOTHING)


def item(answer: str) -> Item:
    return Item("math500/0", "?", {"answer": answer})


def test_the_suites_have_the_sizes_of_the_original_s_table():
    sizes = {suite.name: (suite.size, suite.group, suite.template, suite.max_tokens) for suite in MATH_SUITES}
    assert sizes == {
        name: (size, "math", "r1", 16000)
        for name, size in (("math500", 500), ("aime24", 30), ("aime25", 30), ("amc23", 40), ("minerva", 272), ("olympiadbench", 675))
    }


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_convert_to_their_public_sizes_with_unique_ids(shared_data, name):
    items = real_items(shared_data, name)
    assert len(items) == SUITES[name].size == len({one.id for one in items})
    assert all(one.question.strip() and set(one.reference) == {"answer"} and one.reference["answer"] for one in items)
    assert all(
        one.reference["answer"] not in SUITES[name].wrong(one).split("<answer>")[1] or len(one.reference["answer"]) < 4 for one in items
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_every_reference_answer_is_right_and_every_wrong_one_is_wrong(shared_data, tools, name):
    suite, items = SUITES[name], real_items(shared_data, name)
    right = [suite.submit(one, suite.ideal(one), tools) for one in items]
    wrong = [suite.submit(one, suite.wrong(one), tools) for one in items]
    assert [one.id for one, future in zip(items, right, strict=True) if not future.result().right] == []
    assert {future.result().reason for future in wrong} == {"wrong_value"}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_reference_answers_are_also_right_by_math_verify_and_not_only_as_the_same_text(shared_data, name):
    """In this process: these are the files' answers, not a model's."""
    pytest.importorskip("math_verify")
    from azr_nemo.evaluation.maths.jailed.comparison import same

    answers = [one.reference["answer"] for one in real_items(shared_data, name)]
    assert [answer for answer in answers if not same(answer, answer)] == []


@pytest.mark.slow
def test_reference_answers_stay_right_when_they_are_written_in_another_way(shared_data, tools):
    suite = SUITES["math500"]

    def rewritten(answer: str) -> str:
        answer = answer.replace("\\frac", "\\dfrac").replace("\\left", "").replace("\\right", "").replace("\\! ", "").replace("\\!", "")
        if re.fullmatch(r"-?\d+", answer):
            return f"{answer}.0"
        return f"\\boxed{{ {answer} }}."

    items = real_items(shared_data, "math500")
    grades = [suite.submit(one, f"</think> <answer>{rewritten(one.reference['answer'])}</answer>", tools) for one in items]
    assert [
        (one.reference["answer"], grade.result().answer) for one, grade in zip(items, grades, strict=True) if not grade.result().right
    ] == []


@pytest.mark.slow
def test_the_answer_to_another_problem_is_right_only_where_both_have_the_same(shared_data, tools):
    suite, items = SUITES["math500"], real_items(shared_data, "math500")[::4]
    following = [*items[1:], items[0]]
    grades = [suite.submit(one, suite.ideal(other), tools).result() for one, other in zip(items, following, strict=True)]
    right = [
        (one.reference["answer"], other.reference["answer"])
        for one, other, grade in zip(items, following, grades, strict=True)
        if grade.right
    ]
    assert all(re.sub("^x=", "", other) == one for one, other in right)
    assert len(right) <= 5


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"problem": "p", "answer": 27.0}, "p", "27"),
        ({"question": "q", "answer": 5}, "q", "5"),
        ({"problem": "p", "answer": 0}, "p", "0"),
        ({"problem": "p", "answer": 2.5}, "p", "2.5"),
        ({"problem": "p", "answer": " $\\frac12$ "}, "p", "\\frac12"),
        ({"question": "q", "final_answer": ["$-2,1$"]}, "q", "-2,1"),
        ({"question": "q", "final_answer": ["1", "$x$"]}, "q", "1, x"),
        ({"problem": "p", "solution": "so \\boxed{1} and \\boxed{\\frac{1}{2}} m."}, "p", "\\frac{1}{2}"),
        ({"problem": "p", "solution": "\\boxed{np.arcsin(10/13)}"}, "p", "\\arcsin(10/13)"),
        ({"problem": "p", "answer": "", "solution": "\\boxed{3}"}, "p", "3"),
        ({"problem": "p", "answer": "Yes"}, "p (Yes or No)", "Yes"),
        ({"problem": "p", "answer": "false"}, "p (True or False)", "false"),
    ],
)  # fmt: skip
def test_rows_may_name_and_write_their_fields_in_several_ways(row, question, answer):
    (one,) = SUITES["minerva"].convert([row], NOTHING)
    assert (one.question, one.reference) == (question, {"answer": answer})


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"answer": "1"}, "question"), ({"problem": "", "answer": "1"}, "question"), ({"problem": "p"}, "answer"),
        ({"problem": "p", "answer": None}, "answer"), ({"problem": "p", "answer": {"a": 1}}, "answer"), ({"problem": "p", "answer": []}, "answer"),
        ({"problem": "p", "solution": "no box"}, "answer"), ({"problem": "p", "answer": True}, "answer"),
    ],
)  # fmt: skip
def test_a_row_without_question_or_answer_is_named_in_one_sentence(row, what):
    with pytest.raises(UserError, match=f"^row 2 of amc23 has no {what}: expected one of .*"):
        SUITES["amc23"].convert([{"problem": "p", "answer": 1}, row], NOTHING)


def test_ids_come_from_the_rows_and_where_those_do_not_tell_apart_from_their_order():
    rows = [{"problem": "p", "answer": 1, "unique_id": "a"}, {"problem": "q", "answer": 2, "unique_id": "b"}]
    assert [one.id for one in SUITES["math500"].convert(rows, NOTHING)] == ["math500/a", "math500/b"]
    rows[1]["unique_id"] = "a"
    assert [one.id for one in SUITES["math500"].convert(rows, NOTHING)] == ["math500/0", "math500/1"]


def test_a_response_without_an_answer_is_graded_so_and_asks_no_worker():
    grade = SUITES["math500"].submit(item("1"), "I do not know", NOTHING).result()
    assert (grade.right, grade.reason, grade.answer) == (False, "no_answer", None)


def test_a_grade_says_what_was_read_and_why_it_is_wrong(tools):
    grade = SUITES["math500"].submit(item("\\frac{1}{2}"), "</think> <answer>$0.25$</answer>", tools).result()
    assert (grade.right, grade.reason, grade.answer) == (False, "wrong_value", "0.25")
    grade = SUITES["math500"].submit(item("\\frac{1}{2}"), "</think> <answer>$0.5$</answer>", tools).result()
    assert (grade.right, grade.reason, grade.answer) == (True, "right", "0.5")


@pytest.mark.slow
def test_a_pathological_answer_is_a_grade_and_its_reason_is_the_timeout(tools):
    grade = SUITES["math500"].submit(item("3"), "</think> <answer>$9^{9^{9^{9}}}$</answer>", tools).result()
    assert (grade.right, grade.reason, grade.answer) == (False, "timeout", "9^{9^{9^{9}}}")


def test_a_grader_that_is_gone_is_no_grade():
    class Gone:
        def submit(self, gold, answer):
            future = Future()
            future.set_exception(ExecutorUnavailable("gone"))
            return future

    future = SUITES["math500"].submit(item("1"), "\\boxed{2}", Tools(None, Gone()))  # type: ignore[arg-type]
    with pytest.raises(ExecutorUnavailable):
        future.result()


def test_without_a_grader_one_sentence_says_what_to_install():
    with pytest.raises(UserError, match="azr-nemo\\[eval\\]"):
        SUITES["math500"].submit(item("1"), "\\boxed{2}", NOTHING)
