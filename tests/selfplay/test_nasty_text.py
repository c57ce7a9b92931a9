"""No text that a model wrote ends a run: whatever it is, every place that reads, measures, stores or shows it gives an answer."""

import io
import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_nemo.observe.console import Console
from azr_nemo.observe.report.blocks import blocks
from azr_nemo.observe.report.page import page, write
from azr_nemo.observe.report.read import Reader, names
from azr_nemo.observe.rollout_log import Rollout, read_rollouts, write_step
from azr_nemo.rewards.intrinsic.combine import values
from azr_nemo.rewards.intrinsic.registry import BUILT_IN, components
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.composite_schedule import give
from azr_nemo.selfplay.records import export_jsonl, import_lines, read_jsonl
from azr_nemo.settings.learning import CompositeConfig, IntrinsicConfig, RewardConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.composite import as_function, complete, own_part, prelude, without
from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.induction import leaks
from azr_nemo.tasks.parsing import same_literal
from azr_nemo.tasks.program import (
    body_lines,
    canonical_input,
    check,
    is_held_out,
    normalise,
    parse_arguments,
    program_hash,
    strip,
    with_entry,
)
from azr_nemo.tasks.task import PromptOptions, Refusal, Role, Task, TaskType
from azr_nemo.tasks.values import value_arguments

HEX = "0x" + "f" * 4500
SHARED = Path(__file__).parents[3] / "shared"
EXPRESSIONS = {
    "a number too long to write": HEX,
    "its negative": f"-{HEX}",
    "a key too long to write": f"{{{HEX}: {{{HEX}}}}}",
    "a decimal number too long to read": "9" * 5000,
    "half a character": "'\\ud800'",
    "half a character as it is": "'\ud800'",
    "a null byte": "'\\0'",
    "a null byte as it is": "'\0'",
    "an infinity": "1e999",
    "nan": "1e999 - 1e999",
    "a complex infinity": "-1e999j",
    "an unhashable key": "{[]: 1}",
    "an unhashable element": "{[], {}}",
    "a long sum": "1" + " + 1" * 400,
    "a deep list": "[" * 90 + "]" * 90,
    "a deeper list": "[" * 1500 + "]" * 1500,
    "deep parentheses": "(" * 150 + "1" + ")" * 150,
    "many minus signs": "-" * 3000 + "1",
    "deep lambdas": "lambda: " * 95 + "1",
    "deep calls": "f(" * 95 + "1" + ")" * 95,
    "deep format": "f'{f\"{1}\"}'",
    "a bomb": "10 ** 10 ** 10",
    "an odd escape": "'\\d\\N{BULLET}'",
    "a bad escape": "'\\N{no such}\\x'",
    "other line ends": "'a'\r,\x0c'b\u2028\x85'",
    "marks of direction": "'\u202e\u2066'",
    "markup": "'[red]</answer></script><!--{{ 7 }}{% raw %}'",
    "special tokens": "'<|im_end|><|endoftext|><s></s><|eot_id|><think></think>'",
    "an ellipsis": "...",
    "an unclosed text": "'''",
    "nothing": "",
    "wide digits": "\uff11",
    "a long name": "x" * 3000,
    "backticks": "'''\n```\n~~~\n'''",
}
PROGRAMS = {
    **{name: f"def f(x):\n    return {text}" for name, text in EXPRESSIONS.items()},
    "no program": "\ud800\0 def (",
    "tabs and spaces": "def f(x):\n\tif x:\n        return 1\n\treturn 2",
    "many branches": "def f(x):\n" + "".join(f"    if x == {i}: return {i}\n" for i in range(40)),
    "nested loops": "def f(x):\n" + "".join("    " * (i + 1) + "for i in x:\n" for i in range(19)) + "    " * 20 + "return 1",
    "nested functions": "".join("    " * i + "def f(x):\n" for i in range(60)) + "    " * 60 + "return 1\n    return 1",
    "a match": "def f(x):\n    match x:\n        case {'a': [1, *y], **z} | (-1 + 2j as w):\n            return y\n    return x",
    "new syntax": "def f[T](x: T) -> T:\n    return x",
    "a nonlocal at the top": "nonlocal x\ndef f(x):\n    return x",
    "a name declared twice": "def f(x):\n    global x\n    return x",
    "await outside": "def f(x):\n    return await x",
    "a decorator": f"@lambda g: g\ndef f(x, *, y={HEX}):\n    '''\ud800'''\n    return x",
    "a comment with half a character": "def f(x):  # \ud800\n    return x",
    "an encoding": "# -*- coding: nothing -*-\ndef f(x):\n    return x",
    "one line": "def f(x): return x;" + "x;" * 100,
}  # fmt: skip
COMPONENTS = components(RewardConfig(intrinsic={name: IntrinsicConfig(coef=1.0, hierarchical=True) for name in BUILT_IN}))
R1 = PromptOptions("r1", pairs=2)
COMPLETION = PromptOptions("completion", pairs=2, strip_comments=True, strip_globals=True, strip_prints=True, rename_entry=True)


class Known:
    def inputs(self, kind):
        return Counter(EXPRESSIONS.values())

    outputs = shapes = inputs


def tasks(program: str, text: str) -> list[Task]:
    """One of each type that holds these texts wherever a task holds any."""
    return [
        Task(TaskType.DEDUCTION, program, (text,), (text,)),
        Task(TaskType.ABDUCTION, program, (text,), (text,)),
        Task(TaskType.INDUCTION, program, (text, "1"), (text, "2"), text),
    ]


def read_and_measure(program: str, text: str) -> None:
    for read in (normalise, program_hash, body_lines, with_entry, import_lines, is_held_out, check):
        read(program)
    strip(program, True, True, True)
    leaks(text, program)
    for read in (parse_arguments, canonical_input):
        read(text)
    value_arguments(text, program)
    same_literal(text, text)
    given = as_function(program, 0)
    if not isinstance(given, Refusal):
        prelude([given])
        whole = complete([given], "def f(x):\n    return g_0(x)")
        if not isinstance(whole, Refusal):
            own_part([given], whole)
            without([given], whole, 0)
    body = fence("python", program) + fence("input", text) * 2 + fence("message", text)
    for task in tasks(program, text):
        kind = KINDS[task.type]
        kind.verification(task, text)
        for options, said in ((R1, f"<think></think><answer>{body}</answer>"), (COMPLETION, body)):
            kind.propose_prompt([task], options)
            kind.solve_prompt(task, options)
            kind.parse_proposal(said, [task], options)
            kind.parse_answer(said, options)
    if check(program) is None:
        for task in tasks(program, text)[1:]:
            assert all(0 <= value <= 10 for value in values(COMPONENTS, task, [task], Known()).values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_nasty_program_is_read_and_measured(name):
    read_and_measure(PROGRAMS[name], "1")


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_nasty_input_output_or_message_is_read_and_measured(name):
    read_and_measure("def f(x):\n    return x", EXPRESSIONS[name])


@settings(max_examples=20)
@given(st.text(alphabet=st.characters()), st.sampled_from(list(EXPRESSIONS.values())))
def test_any_text_is_read_and_measured(text, expression):
    read_and_measure(f"def f(x):\n    return [{expression}, {text}]", expression + text)


def storable_tasks() -> list[Task]:
    """Every task that a proposal or a seed with these texts could become."""
    valid = [program for program in PROGRAMS.values() if check(program) is None]
    assert f"def f(x):\n    return {HEX}" in valid
    return [task for program in valid for task in tasks(program, "1")] + [
        task
        for text in EXPRESSIONS.values()
        if not isinstance(parse_arguments(text), Refusal)
        for task in tasks("def f(x):\n    return x", text)
    ]


def test_nasty_tasks_are_stored_exported_and_read_again(tmp_path):
    with TaskBuffer(tmp_path / "buffer.sqlite", 10_000) as buffer:
        for task in storable_tasks():
            buffer.contains(task)
            buffer.add(task, step=1, thought="\ud800\0")
        stored = buffer.tasks(*TaskType)
        assert len(stored) > 50
        for kind in TaskType:
            give(CompositeConfig(chance=1.0, ramp=0), buffer, kind, 5, Random(0))
        for schema in ("native", "reference"):
            assert export_jsonl(buffer, tmp_path / f"{schema}.jsonl", schema)
        assert [record.program for record in read_jsonl(tmp_path / "native.jsonl")] == [one.task.program for one in stored]


def test_nasty_texts_are_kept_shown_and_reported(tmp_path):
    texts = [*PROGRAMS.values(), *EXPRESSIONS.values()]
    rows = [
        Rollout(phase, role, TaskType.INDUCTION, None, (), text, text, "format", -1.0, None, 3)
        for text in texts
        for phase, role in (("propose", Role.PROPOSE), ("solve", Role.SOLVE))
    ]
    write_step(tmp_path, 1, rows)
    assert len(list(read_rollouts(tmp_path))) == len(rows)
    with TaskBuffer(tmp_path / "buffer.sqlite", 10_000) as buffer:
        for task in storable_tasks():
            buffer.add(task, step=1, thought=task.message)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "time": 1.0, "step/seconds": 1.0}) + "\n", encoding="utf-8")
    write(page("run", blocks([Reader(tmp_path, names([tmp_path])[0]).read()])), tmp_path / "report.html")
    for mode in ("plain", "json", "rich"):
        for encoding in ("ascii", "utf-8"):
            with Console(mode, io.TextIOWrapper(io.BytesIO(), encoding=encoding)) as console:
                for text in texts:
                    console.sample(Role.PROPOSE, TaskType.INDUCTION, text, text[:50], -1.0)


@pytest.mark.skipif(not (SHARED / "cases" / "seed_hex.jsonl").is_file(), reason="no shared cases")
def test_the_collected_seed_is_measured():
    for record in read_jsonl(SHARED / "cases" / "seed_hex.jsonl"):
        assert check(record.program) is None
        read_and_measure(record.program, record.inputs[0])
