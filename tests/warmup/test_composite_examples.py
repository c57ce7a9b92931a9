"""A program taken apart into given functions is the same program, and self-play reads the example that it makes."""

from dataclasses import replace
from itertools import islice

import pytest
from test_warm_start import OPTIONS, InProcess

from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.composite import complete
from azr_nemo.tasks.task import Refusal, TaskType
from azr_nemo.warmup.examples import examples, outsourced
from azr_nemo.warmup.generator import generate_tasks
from azr_nemo.warmup.warm_start import warm_start_key


@pytest.fixture(scope="module")
def tasks():
    return generate_tasks(150, 1, InProcess(), pairs=4)


def test_a_program_in_functions_gives_the_same_outputs(tasks):
    apart = 0
    for task in tasks:
        if parts := outsourced(task.program, 2):
            functions, own = parts
            whole = complete(functions, own)
            assert not isinstance(whole, Refusal), whole
            assert [InProcess()._call(whole, text).value for text in task.inputs] == list(task.outputs)
            apart += 1
    assert apart > 20


def test_only_assignments_at_the_front_become_functions():
    program = "def f(x, y):\n    z = x + y\n    t = z * z\n    return t - x"
    assert outsourced(program, 1) == (("def g_0(x, y):\n    return x + y",), program.replace("x + y", "g_0(x, y)", 1))
    functions, own = outsourced(program, 5)
    assert functions[1] == "def g_1(z):\n    return z * z"
    assert own == "def f(x, y):\n    z = g_0(x, y)\n    t = g_1(z)\n    return t - x"
    assert outsourced("def f(x):\n    return x", 2) is None
    assert outsourced("def f(x):\n    y = [0]\n    return y + x", 2) is None


@pytest.mark.parametrize("style", ["completion", "r1"])
def test_composite_examples_are_read_back_whole(tasks, style):
    options, read = replace(OPTIONS, style=style), 0
    for prompt, completion in islice(examples(tasks, options, 2, seed=1, functions=2), 300):
        if "def g_0(" not in prompt.text:
            continue
        kind = KINDS[TaskType.ABDUCTION]
        given = prompt.text.split("# given\n```python\n" if style == "completion" else "builds on:\n```python\n")[1].split("\n```")[0]
        functions = tuple(f"def g_{part}" for part in given.strip().split("def g_")[1:])
        proposal = kind.parse_proposal(prompt.prefill + completion, [], replace(options, functions=functions))
        assert not isinstance(proposal, Refusal), proposal
        assert proposal.program.startswith("def g_0(")
        read += 1
    assert read > 10


def test_without_composite_prompts_the_examples_are_what_they_were(tasks):
    plain = list(islice(examples(tasks, OPTIONS, 2, seed=3), 60))
    assert plain == list(islice(examples(tasks, OPTIONS, 2, seed=3, functions=0), 60))
    assert not any("g_0" in prompt.full + completion for prompt, completion in plain)


def test_a_warm_start_for_composite_prompts_is_another_one(tmp_path):
    plain, composite = RunConfig(), RunConfig()
    composite.selfplay.composite.chance = 0.5
    assert warm_start_key(tmp_path, plain) != warm_start_key(tmp_path, composite)
