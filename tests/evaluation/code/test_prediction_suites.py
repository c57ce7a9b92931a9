"""CRUXEval and LiveCodeBench's code execution are graded as self-play grades its tasks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.errors import UserError
from azr_nemo.evaluation.all_suites import SUITES, groups
from azr_nemo.evaluation.code import CRUXEVAL_INPUT, CRUXEVAL_OUTPUT, LCB_EXECUTION
from azr_nemo.evaluation.code.called import called_f, needed_imports
from azr_nemo.evaluation.code.code_blocks import stated
from azr_nemo.evaluation.command import evaluate
from azr_nemo.evaluation.eval_settings import EvalSettings, load_eval_settings
from azr_nemo.evaluation.in_training import Validation
from azr_nemo.evaluation.templates import in_style, prompt_text
from azr_nemo.observe.console import Console
from azr_nemo.sandbox.executor import Request
from azr_nemo.selfplay.exchange import Completion
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import PromptOptions, Task

DOUBLE = {"id": "sample_0", "code": "def f(x):\n    return x * 2", "input": "[1]", "output": "[1, 1]"}
EXECUTION = {
    "question_id": "2777",
    "id": "sample_0",
    "function_name": "longestPath",
    "code": "def longestPath(n: int, seen: List[int] = []) -> int:\n    @cache\n    def f(i):\n        return 0 if i <= 0 else 1 + longestPath(i - 1)\n"
    "    count = Counter(seen)\n    return f(n) + count[7] + gcd(4, 6) + (inf == -inf)",
    "input": "longestPath(n = 3, seen = [7, 7])",
    "output": "13",
}


class Chatty:
    """A tokenizer with a chat template."""

    chat_template = "there is one"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


CHATTY = Chatty()


def ran(tools, program, arguments):
    ((outcome,),) = tools.executor.run([Request(program, (arguments,))])
    return outcome.value


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("[1]", "right"),
        ("x=[1]", "right"),
        ("[0 + 1]", "right"),
        ("[2]", "wrong_value"),
        ("[1]) or ([1, 1]", "not_one_call"),
        ("'", "not_one_call"),
        ("open('/etc/passwd')", "forbidden"),
        ("", "error"),
        ("[[1], [2]][0]", "right"),
        ("next([i] for i in range(9) if f([i]) == [1, 1])", "right"),
        ("y=1", "error"),
    ],
)
def test_an_input_is_right_when_one_honest_call_gives_the_output(tools, grade, answer, reason):
    (item,) = CRUXEVAL_INPUT.convert([DOUBLE], tools)
    verdict = grade(CRUXEVAL_INPUT, item, stated(answer, "input"))
    assert (verdict.reason, verdict.right, verdict.answer) == (reason, reason == "right", answer)


@pytest.mark.parametrize(
    ("row", "answer", "right", "without_echo"),
    [
        (DOUBLE, "[1]", True, True),
        (DOUBLE, "[2]", False, False),
        ({**DOUBLE, "code": "def f(x):\n    return sorted(x)"}, "[1, 1]", True, False),
        ({**DOUBLE, "code": "def f(x):\n    return sorted(x)"}, "(1, 1)", True, True),
    ],
)
def test_of_right_inputs_those_that_repeat_the_output_are_told_apart(tools, grade, row, answer, right, without_echo):
    (item,) = CRUXEVAL_INPUT.convert([row], tools)
    verdict = grade(CRUXEVAL_INPUT, item, stated(answer, "input"))
    assert (verdict.right, verdict.parts) == (right, {"without_echo": without_echo})


def test_a_run_that_asks_them_as_it_goes_on_tells_them_apart_too(tools):
    sorts = {**DOUBLE, "code": "def f(x):\n    return sorted(x)"}
    items = CRUXEVAL_INPUT.convert([{**sorts, "id": "a"}, {**sorts, "id": "b"}], tools)
    outputs = CRUXEVAL_OUTPUT.convert([DOUBLE], tools)
    steps = Validation([(CRUXEVAL_INPUT, items), (CRUXEVAL_OUTPUT, outputs)], tools, CHATTY, 64).evaluate()
    next(steps)
    said = [stated("[1, 1]", "input"), stated("(1, 1)", "input"), stated("[1, 1]", "output")]
    with pytest.raises(StopIteration) as stop:
        steps.send([[Completion(text, (1,), (2,), (0.0,), finished=True)] for text in said])
    metrics = stop.value.value
    assert (metrics["eval/cruxeval_input"], metrics["held_out/cruxeval_input/without_echo"]) == (1.0, 0.5)
    assert metrics["eval/cruxeval_output"] == 1.0
    assert "held_out/cruxeval_output/without_echo" not in metrics


@pytest.mark.parametrize(("answer", "reason"), [("[1,1]", "right"), ("[1]", "wrong_value"), ("f([1])", "not_literal"), ("", "not_literal")])
def test_an_output_is_a_literal(tools, grade, answer, reason):
    (item,) = CRUXEVAL_OUTPUT.convert([DOUBLE], tools)
    assert grade(CRUXEVAL_OUTPUT, item, stated(answer, "output")).reason == reason


@pytest.mark.parametrize("style", ["completion", "code", "chat", "chat_thoughts"])
@pytest.mark.parametrize("suite", [CRUXEVAL_INPUT, CRUXEVAL_OUTPUT])
def test_in_a_style_of_self_play_items_are_asked_and_graded_as_its_tasks(tools, wrongly_graded, suite, style):
    (item,) = suite.convert([DOUBLE], tools)
    assert prompt_text(in_style(suite, "r1", CHATTY), item, suite.template, CHATTY) == prompt_text(suite, item, suite.template, CHATTY)
    styled = in_style(suite, style, CHATTY)
    assert wrongly_graded(styled, [item]) == ({}, {})
    text = prompt_text(styled, item, suite.template, CHATTY)
    task = Task(suite.kind, DOUBLE["code"], (DOUBLE["input"],), (DOUBLE["output"],))
    frame = ("<system>", "<user>", "<assistant>") if style.startswith("chat") else ("", "", "")
    assert text == KINDS[suite.kind].solve_prompt(task, PromptOptions(style, frame=frame))


def test_a_suite_of_other_items_has_no_style():
    assert in_style(SUITES["humaneval"], "code", CHATTY) is SUITES["humaneval"]
    with Console("plain") as console, pytest.raises(UserError, match="which humaneval is not"):
        evaluate(EvalSettings(checkpoint="x", suite=["cruxeval_input", "humaneval"], style="code"), console)
    with pytest.raises(UserError, match="both say how items are asked"):
        load_eval_settings(["checkpoint=x", "suite=cruxeval_input", "style=code", "template=raw"], groups())


def test_the_question_does_not_show_the_answer(tools):
    (item,) = CRUXEVAL_OUTPUT.convert([DOUBLE], tools)
    assert "[1, 1]" not in item.question
    (item,) = CRUXEVAL_INPUT.convert([DOUBLE | {"input": "[17]", "output": "[17, 17]"}], tools)
    assert "[17]" not in item.question
    assert "[17, 17]" in item.question


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("it is\n```output\n[1, 1]\n```\n", "right"),  # a template without the tags
        ("<think>it is\n```output\n[1, 1]\n```\n", "no_answer"),  # cut off in thought
        ("```output\n[1, 1]\n```\n</think>", "no_answer"),
        ("[1, 1]", "no_answer"),
        ("```output\n[1, 1]", "no_answer"),
    ],
)
def test_responses_are_read_as_in_training_or_by_their_last_fence(tools, grade, response, reason):
    (item,) = CRUXEVAL_OUTPUT.convert([DOUBLE], tools)
    assert grade(CRUXEVAL_OUTPUT, item, response).reason == reason


@given(st.text() | st.text().map(lambda answer: stated(answer, "input")) | st.text().map(lambda answer: stated(answer, "output")))
def test_any_text_is_graded(tools, grade, response):
    for suite in (CRUXEVAL_INPUT, CRUXEVAL_OUTPUT):
        (item,) = suite.convert([DOUBLE], tools)
        assert grade(suite, item, response).right in (True, False)


@pytest.mark.parametrize(
    "change", [{"code": None}, {"output": "[1, 1"}, {"output": "g(1)"}, {"input": "1) or (2"}, {"input": 3}, {"output": None}]
)
def test_a_row_that_makes_no_sense_is_named(tools, change):
    with pytest.raises(UserError, match=r"cruxeval_input, row 1 \(sample_0\): "):
        CRUXEVAL_INPUT.convert([DOUBLE | change], tools)


def test_the_function_is_called_f_wherever_it_is_named(tools, grade):
    (item,) = LCB_EXECUTION.convert([EXECUTION], tools)
    program, arguments = item.reference["program"], item.reference["input"]
    assert arguments == "n=3, seen=[7, 7]"
    assert "longestPath" not in program
    assert program.startswith(
        "from collections import Counter\nfrom functools import cache\nfrom math import gcd, inf\nfrom typing import List\n\ndef f("
    )
    assert ran(tools, program, arguments) == "13"
    assert grade(LCB_EXECUTION, item, LCB_EXECUTION.ideal(item)).right
    assert not grade(LCB_EXECUTION, item, LCB_EXECUTION.wrong(item)).right


@pytest.mark.parametrize(
    ("program", "call", "value"),
    [
        ("def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n=n - 2)", "fib(10)", "55"),
        ("def sol(f):\n    return f + 1 if f > 3 else sol(f=f + 1)", "sol(f = 1)", "5"),
        ("def f(x):\n    return g(x)\ndef g(x):\n    return x", "g(3)", "3"),
        ("def g(f):\n    return h(f)\ndef h(x):\n    return x if x else g(1)", "g(f=0)", "1"),
        (
            "class A:\n    def f(self):\n        return 5\n    def go(self):\n        return 6\n"
            "def go(n):\n    f = A()\n    return f.f() + f.go() + (go(n - 1) if n else 0)", "go(1)", "22",
        ),
        ("def go(s):\n    go = s\n    return go", "go('go(1)')", "'go(1)'"),
        ("def go(n):\n    def inner():\n        nonlocal n\n        n += 1\n    inner()\n    return n", "go(1)", "2"),
        ("def f(a, b):\n    return a - b", " f(b = 1, a = 2)\n", "1"),
        ("def go(xs):\n    return bisect(xs, 2) + bisect_left(xs, 2)", "go([1, 2, 3])", "3"),
        ("def go(xs):\n    return bisect.bisect(xs, 2)", "go([1, 2, 3])", "2"),
        ("def go(xs):\n    heapify(xs)\n    heappush(xs, 0)\n    return heappop(xs), [*accumulate(xs)], reduce(max, xs)", "go([3, 1])", "(0, [1, 4], 3)"),
        ("def go(xs):\n    return math.inf in xs, collections.deque(xs)[0], prod(islice(xs, 2)), comb(4, 2)", "go([3, 1])", "(False, 3, 3, 6)"),
        ("def go(x):\n    return max(map(lambda gcd: gcd, x))", "go([3, 1])", "3"),
        ("'Two.'\nfrom __future__ import annotations\ndef go(x: Unknown) -> Unheard:\n    return gcd(x, 4), __doc__", "go(6)", "(2, 'Two.')"),
    ],
)  # fmt: skip
def test_a_renamed_program_computes_what_it_did(tools, program, call, value):
    assert ran(tools, *called_f(program, call)) == value


def test_imports_are_those_of_free_names_only():
    assert needed_imports("def f(Counter):\n    s = 'deque gcd'  # inf\n    return Counter(s)") == ""
    assert needed_imports("from math import gcd\ndef f(x):\n    return gcd(x, inf)") == "from math import inf"
    assert needed_imports("import math\ndef f(x: Optional[int]) -> Dict[str, Tuple[int]]:\n    return math.inf") == (
        "from typing import Dict, Optional, Tuple"
    )
    assert needed_imports("def f(x):\n    return x.bisect(unheard_of)") == ""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"input": "longestPath"}, "is not a call of a function by its name"),
        ({"input": "other(1)"}, "has no top-level function other"),
        ({"input": "longestPath(1"}, "does not parse"),
        ({"code": "def longestPath(:"}, "does not parse"),
        ({"output": "inf"}, "is not a Python literal"),
        ({"input": None}, "input is NoneType, not str"),
    ],
)
def test_an_execution_row_that_makes_no_sense_is_named(tools, change, what):
    with pytest.raises(UserError, match=rf"lcb_execution, row 1 \(2777\): .*{what}"):
        LCB_EXECUTION.convert([EXECUTION | change], tools)


def test_all_public_cruxeval_items_are_right_and_no_wrong_answer(tools, public_rows, wrongly_graded, grade):
    rows = public_rows("cruxeval_200.jsonl")
    for suite in (CRUXEVAL_OUTPUT, CRUXEVAL_INPUT):
        assert wrongly_graded(suite, suite.convert(rows, tools)) == ({}, {})


def test_an_input_of_a_benchmark_may_say_what_its_own_do(tools, grade):
    """Shapes of CRUXEval's rows: no argument at all, a slice of the program's list, a lambda that changes its argument."""
    rows = [
        ("def f():\n    return [1]", "", "[1]"),
        ("CODES = [1, 2]\ndef f(x, y):\n    return x + [y]", "CODES[:], 3", "[1, 2, 3]"),
        ("def f(x, act):\n    y = x[:]\n    act(y)\n    return y", "[6, 4], (lambda x: x.reverse())", "[4, 6]"),
    ]
    for code, given_input, output in rows:
        (item,) = CRUXEVAL_INPUT.convert([{"id": "own", "code": code, "input": given_input, "output": output}], tools)
        assert grade(CRUXEVAL_INPUT, item, stated(given_input, "input")).right
