"""Worked examples are right, stand before the item as it is asked anyway, and are for styles whose prompts can follow each other."""

import pytest

from azr_nemo.errors import UserError
from azr_nemo.evaluation.all_suites import groups
from azr_nemo.evaluation.code import CRUXEVAL_INPUT, CRUXEVAL_OUTPUT
from azr_nemo.evaluation.code.worked_examples import MOST, PROGRAMS
from azr_nemo.evaluation.eval_settings import load_eval_settings
from azr_nemo.sandbox.executor import Request
from azr_nemo.tasks.task import PromptOptions

DOUBLE = {"id": "sample_0", "code": "def f(x):\n    return x * 2", "input": "[1]", "output": "[1, 1]"}


def test_every_worked_example_is_right(tools):
    outcomes = tools.executor.run([Request(program, (given,)) for program, given, _ in PROGRAMS])
    assert [outcome.value for (outcome,) in outcomes] == [output for _, _, output in PROGRAMS]
    assert len(PROGRAMS) == MOST


@pytest.mark.parametrize("style", ["code", "completion"])
@pytest.mark.parametrize("suite", [CRUXEVAL_INPUT, CRUXEVAL_OUTPUT])
def test_an_item_after_examples_ends_as_it_ends_without(suite, style, tools):
    (item,) = suite.convert([DOUBLE], tools)
    plain, shown = (suite.styled(PromptOptions(style), shots).prompt(item) for shots in (0, 2))
    assert shown.full.endswith(plain.full)
    assert (shown.prefill, shown.stop) == (plain.prefill, plain.stop)
    assert shown.text.count("def f(") == 3
    before = shown.full[: -len(plain.full)]
    assert before.endswith("\n\n\n")
    for _, given, output in PROGRAMS[:2]:
        assert given in before
        assert output in before


def test_the_code_styles_examples_read_as_a_file(tools):
    (item,) = CRUXEVAL_OUTPUT.convert([DOUBLE], tools)
    text = CRUXEVAL_OUTPUT.styled(PromptOptions("code"), 1).prompt(item).full
    assert f"{PROGRAMS[0][0]}\n\nassert f({PROGRAMS[0][1]}) == {PROGRAMS[0][2]}\n\n\ndef f(x):" in text


def test_styles_that_cannot_show_examples_are_named():
    for style in ("r1", "chat"):
        with pytest.raises(UserError, match=r"shots=2 needs a style .*: set style=code or style=completion"):
            load_eval_settings(["checkpoint=x", "suite=cruxeval_input", f"style={style}", "shots=2"], groups())
