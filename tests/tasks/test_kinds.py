"""The three task types read back what they write, refuse what is malformed, and judge answers by value."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.task import Calls, PromptOptions, Proposal, Refusal, Result, Task, TaskType, Verdict

PROGRAM = "def f(x):\n    y = x * 3\n    return y + 1"
STYLES = [PromptOptions(style=style, pairs=4) for style in ("r1", "completion", "code", "chat", "chat_thoughts")]
STYLE_IDS = [options.style for options in STYLES]
NUMBERS = st.integers(-99, 99)
# A comment may hold anything printable: fences, tags, quotes.
COMMENTS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30) | st.sampled_from(
    ["```", "```python", "~~~", "<answer>", "</think>", "'''"]
)


def example(kind: TaskType) -> Task:
    if kind is TaskType.INDUCTION:
        return Task(kind, PROGRAM, ("1", "2", "3", "4"), ("4", "7", "10", "13"), "Threefold and one more.")
    return Task(kind, PROGRAM, ("2",), ("7",))


@st.composite
def tasks(draw) -> Task:
    kind = draw(st.sampled_from(list(TaskType)))
    program = f"def f(x):  # {draw(COMMENTS)}\n    return x + {draw(NUMBERS)}"
    inputs = draw(st.lists(NUMBERS.map(str) | st.text(max_size=5).map(ascii), min_size=4, max_size=4, unique=True))
    if kind is TaskType.INDUCTION:
        return Task(kind, program, tuple(inputs), tuple(inputs), draw(st.sampled_from(["A hint.", "Is it\n```\nodd?", "?"])))
    return Task(kind, program, (inputs[0],), (inputs[1],))


def ideal_answer(task: Task) -> str:
    return {TaskType.DEDUCTION: task.outputs[0], TaskType.ABDUCTION: task.inputs[0], TaskType.INDUCTION: task.program}[task.type]


@pytest.mark.parametrize("options", STYLES, ids=STYLE_IDS)
@given(task=tasks())
def test_a_stated_proposal_is_read_back(options, task):
    kind = KINDS[task.type]
    proposal = Proposal(task.type, task.program, task.inputs, task.message if options.style in ("r1", "completion") else "")
    assume("</answer>" not in task.program)
    prompt = kind.propose_prompt([task], options)
    assert kind.parse_proposal(prompt.prefill + kind.proposal_text(proposal, options), [task], options) == proposal


@pytest.mark.parametrize("options", STYLES, ids=STYLE_IDS)
@given(task=tasks())
def test_a_stated_answer_is_read_back(options, task):
    kind = KINDS[task.type]
    assume("</answer>" not in task.program)
    prompt = kind.solve_prompt(task, options)
    assert kind.parse_answer(prompt.prefill + kind.answer_text(ideal_answer(task), options), options) == ideal_answer(task)


@pytest.mark.parametrize("options", STYLES, ids=STYLE_IDS)
@given(text=st.text() | st.text(alphabet="`<>/thinkanswerpyou \n1"))
def test_no_response_raises(options, text):
    for kind in KINDS.values():
        kind.parse_proposal(text, [example(kind.type)], options)
        kind.parse_answer(text, options)


def test_what_a_style_cannot_state_is_an_error_not_another_text():
    kind = KINDS[TaskType.INDUCTION]
    with pytest.raises(ValueError, match="answer"):
        kind.answer_text("def f(x):\n    return '</answer>'", STYLES[0])
    with pytest.raises(ValueError, match="fences"):
        kind.answer_text("def f(x):\n    '''\n```\n'''\n    return x", STYLES[1])
    code = replace(STYLES[0], style="code")
    with pytest.raises(ValueError, match="begins with something else than f"):
        kind.answer_text("import math\ndef f(x):\n    return math.pi", code)
    with pytest.raises(ValueError, match="would end before"):
        kind.answer_text("def f(x):\n    return '''\na'''", code)
    for answer in ("1,\n2", "'  #'"):
        with pytest.raises(ValueError, match="would end before"):
            KINDS[TaskType.ABDUCTION].answer_text(answer, code)
    with pytest.raises(ValueError, match="would be read as"):
        kind.proposal_text(Proposal(kind.type, PROGRAM, ("1", "2", "3", "4"), "A hint."), code)
    with pytest.raises(ValueError, match="several lines"):
        KINDS[TaskType.ABDUCTION].answer_text("1,\n2", replace(STYLES[0], style="chat"))


def completion_proposal(kind: TaskType, body: str) -> Proposal | Refusal:
    return KINDS[kind].parse_proposal(body, [example(kind)], STYLES[1])


@pytest.mark.parametrize("kind", [TaskType.DEDUCTION, TaskType.ABDUCTION])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("nothing", "format"),
        (fence("python", PROGRAM), "format"),
        (fence("input", "1"), "format"),
        (fence("python", PROGRAM) + "```input\n1", "format"),
        (fence("python", "def f(x): pass") + fence("input", "1"), "no_return"),
        (fence("python", "import os\n" + PROGRAM) + fence("input", "1"), "import"),
        (fence("python", PROGRAM) + fence("input", "2) or (1"), "not_one_call"),
        (fence("python", PROGRAM) + fence("input", ""), "no_arguments"),
    ],
)
def test_a_proposal_that_cannot_be_a_task_is_refused(kind, body, reason):
    assert completion_proposal(kind, body).reason == reason


def inputs(*texts: str) -> str:
    return "".join(fence("input", text) for text in texts)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (inputs("1", "2", "3"), "format"),
        (inputs("1", "2", "3", " 1"), "repeated_input"),
        (inputs("1,2", "2", "3", "1, 2"), "repeated_input"),
        (inputs("1", "2", "3", "4); f(5"), "not_one_call"),
        (inputs("1", "2", "3", "4") + fence("message", "it is def f(x): ..."), "message_carries_program"),
        (inputs("1", "2", "3", "4") + fence("message", "first y = x * 3 and then return y + 1"), "message_carries_program"),
    ],
)
def test_an_induction_proposal_must_be_different_inputs_and_no_leak(body, reason):
    assert completion_proposal(TaskType.INDUCTION, body).reason == reason


def test_a_message_in_plain_words_is_no_leak():
    proposal = completion_proposal(TaskType.INDUCTION, inputs("1", "2", "3", "4") + fence("message", "Multiply, then add."))
    assert proposal == Proposal(TaskType.INDUCTION, PROGRAM, ("1", "2", "3", "4"), "Multiply, then add.")


def test_the_r1_style_demands_a_message_and_the_tags():
    kind, references = KINDS[TaskType.INDUCTION], [example(TaskType.INDUCTION)]
    wrapped = f"<think> </think> <answer>{inputs('1', '2', '3', '4')}</answer>"
    assert kind.parse_proposal(wrapped, references, STYLES[0]).reason == "format"
    assert kind.parse_answer(fence("python", PROGRAM), STYLES[0]).reason == "format"


def test_the_last_fence_answers_in_the_r1_style_and_the_first_in_the_completion_style():
    kind, two = KINDS[TaskType.DEDUCTION], fence("output", "1") + fence("output", "2")
    assert kind.parse_answer(f"<think>a</think><answer>{two}</answer>", STYLES[0]) == "2"
    assert kind.parse_answer(two, STYLES[1]) == "1"


@pytest.mark.parametrize("kind", list(TaskType))
def test_a_proposal_whose_program_failed_is_no_task(kind):
    task = example(kind)
    proposal = Proposal(kind, task.program, task.inputs, task.message)
    ran = [Result(True, output) for output in task.outputs]
    assert KINDS[kind].task(proposal, ran) == task
    assert KINDS[kind].task(proposal, [*ran[:-1], Result(False, None, "timeout", "5 s")]) == Refusal("timeout", "5 s")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("7", Verdict(1, "right")), ("7.0", Verdict(1, "right")), ("8", Verdict(0, "wrong_value")), ("3 + 4", Verdict(0, "not_literal"))],
)
def test_deduction_is_judged_without_running_anything(answer, verdict):
    assert KINDS[TaskType.DEDUCTION].verification(example(TaskType.DEDUCTION), answer) == verdict


def test_abduction_takes_any_input_that_gives_the_output():
    kind, task = KINDS[TaskType.ABDUCTION], example(TaskType.ABDUCTION)
    assert kind.verification(task, "1 + 1") == Calls(PROGRAM, ("1 + 1",))
    assert kind.verification(task, "2) or (7") == Verdict(0, "not_one_call")
    assert kind.score(task, [Result(True, "7.0")]).score == 1
    assert kind.score(task, [Result(True, "8")]) == Verdict(0, "wrong_value")
    assert kind.score(task, [Result(False, None, "timeout")]) == Verdict(0, "timeout")


def test_the_stored_output_never_travels_to_where_programs_run():
    secret = replace(example(TaskType.ABDUCTION), outputs=("'secret'",))
    assert "secret" not in repr(KINDS[TaskType.ABDUCTION].verification(secret, "2"))


def test_induction_is_judged_on_the_hidden_half_alone():
    kind, task = KINDS[TaskType.INDUCTION], example(TaskType.INDUCTION)
    assert kind.verification(task, PROGRAM) == Calls(PROGRAM, ("3", "4"))
    assert kind.verification(task, "import os") == Verdict(0, "no_entry")
    half = [Result(True, "10"), Result(True, "0")]
    assert kind.score(task, half) == Verdict(0, "wrong_value")
    assert kind.score(task, half, partial=True) == Verdict(0.5, "wrong_value")
    assert kind.score(task, [Result(True, "10"), Result(True, "13")]) == Verdict(1, "right")
    assert kind.score(task, [Result(False, None, "memory"), Result(True, "13")]).reason == "memory"


@pytest.mark.parametrize("options", STYLES, ids=STYLE_IDS)
def test_a_solver_is_never_shown_what_it_is_asked_for(options):
    seen = {
        kind: KINDS[kind].solve_prompt(replace(example(kind), outputs=("'o1'", "'o2'", "'o3'", "'o4'")), options).full for kind in TaskType
    }
    assert "'o1'" not in seen[TaskType.DEDUCTION]
    assert fence("input", "2") not in seen[TaskType.ABDUCTION]
    assert "'o2'" in seen[TaskType.INDUCTION]
    assert "'o3'" not in seen[TaskType.INDUCTION]
    assert PROGRAM not in seen[TaskType.INDUCTION]


@pytest.mark.parametrize("kind", [TaskType.DEDUCTION, TaskType.ABDUCTION])
def test_a_proposed_function_of_another_name_is_renamed_where_that_is_asked_for(kind):
    text = fence("python", "def solve(x):\n    return x + 1") + fence("input", "1")
    assert KINDS[kind].parse_proposal(text, [], STYLES[1]).reason == "no_entry"
    renamed = KINDS[kind].parse_proposal(text, [], replace(STYLES[1], rename_entry=True))
    assert renamed.program == "def f(x):\n    return x + 1"


@pytest.mark.parametrize("kind", [TaskType.DEDUCTION, TaskType.ABDUCTION])
def test_a_proposed_program_is_stripped_where_that_is_asked_for(kind):
    program = "K = 1\ndef f(x):\n    # adds\n    print(x)\n    return x + 1"
    options = replace(STYLES[1], strip_comments=True, strip_globals=True, strip_prints=True)
    text = fence("python", program) + fence("input", "1")
    assert KINDS[kind].parse_proposal(text, [], options).program == "def f(x):\n    return x + 1"
    assert KINDS[kind].parse_proposal(text, [], STYLES[1]).program == program
