"""Every prompt is exactly what its snapshot says. A changed prompt is a changed experiment: look at the difference, then renew with
AZR_RENEW_SNAPSHOTS=1."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.styles import STYLES as registered
from azr_nemo.tasks.task import PromptOptions, PromptText, Task, TaskType

STYLES = ["r1", "completion", "code", "chat", "chat_thoughts"]
FRAME = ("<|system|>", "<|user|>", "<|assistant|>")
SNAPSHOTS = Path(__file__).parent / "snapshots"
FIRST = "def f(x):\n    y = x * 3\n    return y + 1"
SECOND = "def f(s, n=1):\n    return s * n"


def references(kind: TaskType) -> list[Task]:
    if kind is TaskType.INDUCTION:
        return [Task(kind, FIRST, ("1", "2", "3", "4"), ("4", "7", "10", "13"), "Threefold and one more.")]
    return [Task(kind, FIRST, ("2",), ("7",)), Task(kind, SECOND, ("'ab', n=2",), ("'abab'",))]


def prompts(style: str) -> dict[str, PromptText]:
    options = PromptOptions(style=style, pairs=4, allowed_imports=("math", "re"), frame=FRAME)
    made = {}
    for kind in TaskType:
        made[f"propose_{kind}"] = KINDS[kind].propose_prompt(references(kind), options)
        made[f"solve_{kind}"] = KINDS[kind].solve_prompt(references(kind)[0], options)
    made["propose_deduction_lines"] = KINDS[TaskType.DEDUCTION].propose_prompt(references(TaskType.DEDUCTION), replace(options, lines=3))
    wishes = ("a list of ints", "zip", "recursion")
    made["propose_deduction_wishes"] = KINDS[TaskType.DEDUCTION].propose_prompt(
        references(TaskType.DEDUCTION), replace(options, wishes=wishes)
    )
    made["propose_abduction_first"] = KINDS[TaskType.ABDUCTION].propose_prompt([], options)
    functions = FIRST.replace("def f(", "def g_0("), SECOND.replace("def f(", "def g_1(")
    for given, name in ((functions, "two"), (functions[:1], "one")):
        made[f"propose_deduction_given_{name}"] = KINDS[TaskType.DEDUCTION].propose_prompt(
            references(TaskType.DEDUCTION), replace(options, functions=given)
        )
    for wording in range(1, getattr(registered[style], "wordings", 1)):
        for kind in TaskType:
            made[f"solve_{kind}_wording_{wording}"] = KINDS[kind].solve_prompt(references(kind)[0], replace(options, wording=wording))
    wordless = replace(references(TaskType.INDUCTION)[0], message="")
    made["solve_induction_wordless"] = KINDS[TaskType.INDUCTION].solve_prompt(wordless, options)
    return made


@pytest.mark.parametrize(("style", "name"), [(style, name) for style in STYLES for name in prompts(style)])
def test_the_prompt_is_as_in_its_snapshot(style, name):
    prompt = prompts(style)[name]
    shown = f"{prompt.text}[prefill]{prompt.prefill}"
    path = SNAPSHOTS / f"{name}.{style}.txt"
    if os.environ.get("AZR_RENEW_SNAPSHOTS"):
        path.write_text(shown, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == shown


def test_no_snapshot_is_left_over():
    expected = {f"{name}.{style}.txt" for style in STYLES for name in prompts(style)}
    assert {path.name for path in SNAPSHOTS.iterdir()} == expected


def test_template_syntax_in_a_program_is_text():
    program = "def f(x):\n    return '{{ 7 * 7 }}{% raw %}<b>&'"
    task = Task(TaskType.DEDUCTION, program, ("1",), ("1",))
    for style in STYLES:
        assert program in KINDS[TaskType.DEDUCTION].solve_prompt(task, PromptOptions(style=style)).full
