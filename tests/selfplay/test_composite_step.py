"""Composite prompts come when the schedule says, build on the buffer's programs, and what answers them is stored whole and proved."""

import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_tasks import FakeExecutor, adder
from test_step import OPTIONS, SEEDS, completion, configured, drive, self_play
from tiny_run import finish, start, state

from azr_nemo.errors import UserError
from azr_nemo.observe.rollout_log import read_rollouts
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.sandbox.executor import Limits
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.composite_schedule import chance, give, most
from azr_nemo.settings.schema import CompositeConfig, IntrinsicConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import Proposal, Role, Task, TaskType

DEDUCTION = TaskType.DEDUCTION
ALWAYS = CompositeConfig(chance=1.0, functions_min=1, functions_max=1)
PATIENT = Limits(wall_s=60.0, cpu_s=30.0)


def filled(folder: Path, *programs: str) -> TaskBuffer:
    buffer = TaskBuffer(folder / "tasks.db", 100)
    for program in programs:
        buffer.add(Task(DEDUCTION, program, ("1",), ("2",)), 0)
    return buffer


# When


@given(
    full=st.floats(0, 1),
    start=st.integers(1, 40),
    ramp=st.integers(0, 40),
    grow=st.integers(0, 9),
    least=st.integers(1, 4),
    more=st.integers(0, 4),
)
def test_chance_and_number_rise_from_the_start_to_their_ends_and_stay(full, start, ramp, grow, least, more):
    settings = CompositeConfig(full, start, ramp, least, least + more, grow)
    chances = [chance(settings, step) for step in range(100)]
    numbers = [most(settings, step) for step in range(100)]
    assert chances[:start] == [0.0] * start  # seeding, step 0, among them
    assert chances == sorted(chances)
    assert numbers == sorted(numbers)
    assert chances[start + ramp :] == [full] * (100 - start - ramp)
    assert least <= numbers[0] <= numbers[-1] == least + more
    if ramp:
        assert chances[start] == pytest.approx(full / ramp)


def test_no_random_number_is_drawn_while_the_chance_is_zero(tmp_path):
    rng = random.Random(3)
    buffer = filled(tmp_path, adder(1))
    for settings, kind in ((CompositeConfig(), DEDUCTION), (CompositeConfig(1.0, start=9), DEDUCTION), (ALWAYS, TaskType.INDUCTION)):
        assert give(settings, buffer, kind, 8, rng).texts == ()
    assert rng.getstate() == random.Random(3).getstate()


def test_half_a_chance_is_taken_half_the_time(tmp_path):
    buffer, rng = filled(tmp_path, adder(1)), random.Random(1)
    taken = sum(bool(give(CompositeConfig(0.5, functions_max=1), buffer, DEDUCTION, 1, rng).texts) for _ in range(400))
    assert 150 < taken < 250


# Which


def test_the_number_of_functions_lies_between_min_and_max_and_both_occur(tmp_path):
    buffer, rng = filled(tmp_path, *map(adder, range(9))), random.Random(1)
    settings = CompositeConfig(1.0, functions_min=1, functions_max=3)
    drawn = [give(settings, buffer, DEDUCTION, 1, rng) for _ in range(60)]
    assert {len(found.texts) for found in drawn} == {1, 2, 3}
    for found in drawn:
        assert len({stored.id for stored in found.tasks}) == len(found.tasks) == len(found.texts)
        assert [f"def g_{i}(x)" in text for i, text in enumerate(found.texts)] == [True] * len(found.texts)


def test_programs_that_cannot_be_functions_and_twins_are_passed_over(tmp_path):
    composite = "def g_0(x):\n    return x\n\ndef f(x):\n    return g_0(x)"
    twin = Task(DEDUCTION, adder(1), ("5",), ("6",))
    buffer = filled(tmp_path, adder(1), adder(2), "def f(x):\n    return [f for f in x]", composite)
    buffer.add(twin, 0)
    settings = CompositeConfig(1.0, functions_min=2, functions_max=2)
    for seed in range(20):
        found = give(settings, buffer, DEDUCTION, 1, random.Random(seed))
        assert {stored.task.program for stored in found.tasks} == {adder(1), adder(2)}
    three = CompositeConfig(1.0, functions_min=3, functions_max=3)
    assert give(three, buffer, DEDUCTION, 1, random.Random(1)).texts == ()  # there are no three: an ordinary prompt


# The step


def answer(prompts, programs) -> list[list]:
    """Deduction proposals hold these programs in turn, for the input 1; all else is unreadable."""
    rows, turn = [], iter(programs)
    for row, prompt in enumerate(prompts):
        text = KINDS[prompt.type].proposal_text(Proposal(prompt.type, next(turn), ("1",)), OPTIONS) if prompt.type is DEDUCTION else "no"
        rows.append([completion(text, row)])
    return rows


def composite_step(folder: Path, programs: list[str], **changes):
    """A step of deduction alone, really executed, whose four proposals are these; half of the estimates are right."""
    config = configured(task_types=["deduction"], composite=ALWAYS, **changes)
    config.reward.intrinsic["halstead"] = IntrinsicConfig(coef=1.0, max=1.0)
    with LocalPool(workers=1, limits=PATIENT) as executor:
        play = self_play(folder, config, executor)
        step = play.step(1)
        batch = next(step)
        asked = [prompt.text.text for prompt in batch.prompts]
        batch = step.send(answer(batch.prompts, programs))
        while True:
            replies = [
                [completion(KINDS[DEDUCTION].answer_text(text, OPTIONS), k) for k, text in enumerate(["21", "0"][: prompt.samples])]
                for prompt in batch.prompts
            ]
            try:
                batch = step.send(replies)
            except StopIteration as stop:
                return play, asked, stop.value


def test_only_programs_that_really_call_their_function_become_tasks(tmp_path):
    uses = "def f(x):\n    y = g_0(10 * x)\n    return y - y + 21"
    ignores = "def f(x):\n    return x"
    pretends = "def f(x):\n    if x > 5:\n        return g_0(x)\n    return 21"
    redefines = "def g_0(x):\n    return 21\n\ndef f(x):\n    return g_0(x)"
    play, asked, result = composite_step(tmp_path, [uses, ignores, pretends, redefines])
    assert all("# given\n```python\ndef g_0(x):\n    return x + " in text for text in asked)
    outcomes = [a.outcome for a in result.attempts if a.prompt.role is Role.PROPOSE]
    assert outcomes == ["solve_rate=0.50", "composite_uncalled", "composite_uncalled", "composite_redefined"]
    (stored,) = play.buffer.recent(DEDUCTION, 1)
    functions, own = stored.task.program.split("\n\n")
    assert functions.replace("g_0", "f") in {adder(number) for number in SEEDS}
    assert own == uses
    assert stored.task.output == "21"
    assert len(stored.references) in (2, 3)  # two references, and the function's task where it is not one of them
    parents = [play.buffer.get(id) for id in stored.references]
    assert functions.replace("g_0", "f") in {parent.task.program for parent in parents if parent}
    assert (result.metrics["composite/deduction/asked"], result.metrics["composite/deduction/valid"]) == (1.0, 0.25)


def test_intrinsic_rewards_measure_what_the_proposer_wrote(tmp_path):
    pytest.importorskip("radon")
    _, _, result = composite_step(tmp_path, ["def f(x):\n    return g_0(x) and 21"] + ["def f(x):\n    return x"] * 3)
    from azr_nemo.rewards.intrinsic.halstead import halstead

    own = Task(DEDUCTION, "def f(x):\n    return g_0(x) and 21", ("1",), ("21",))
    assert result.metrics["intrinsic/deduction/halstead"] == pytest.approx(halstead(own, [], None))


def test_a_prompt_without_room_for_functions_is_an_ordinary_one(tmp_path):
    play = self_play(tmp_path, configured(composite=ALWAYS))
    play.proposer.fits = lambda text: "# given" not in text
    row = play.proposer.row(DEDUCTION, random.Random(1), step=1)
    assert (row.given.texts, "# given" in row.row.prompt.text.text) == ((), False)
    assert len(row.references) == 2


def test_proposals_that_answer_the_same_prompt_have_the_same_functions(tmp_path):
    play = self_play(tmp_path, configured(composite=ALWAYS, propose_samples=2))
    first, second = play.proposer.alike(DEDUCTION, random.Random(1), 1)
    assert first.given == second.given
    assert first.given.texts


def test_seeding_asks_for_no_composite_programs(tmp_path):
    row = self_play(tmp_path, configured(composite=ALWAYS)).proposer.row(DEDUCTION, random.Random(1))
    assert row.given.texts == ()


def test_before_its_start_a_schedule_changes_nothing(tmp_path):
    later = CompositeConfig(1.0, start=4)
    plain, scheduled = (
        drive(self_play(tmp_path / name, configured(**changes)), 3) for name, changes in (("a", {}), ("b", {"composite": later}))
    )
    assert plain[1] == scheduled[1]
    assert plain[0].metrics == scheduled[0].metrics
    assert not any(name.startswith("composite/") for name in plain[0].metrics)


def test_a_repeated_composite_step_asks_the_same(tmp_path):
    first, again = (drive(self_play(tmp_path / name, configured(composite=ALWAYS), FakeExecutor()), 2)[1] for name in "ab")
    assert first == again
    assert sum("# given" in text for text in first[0][1]) == 8


# Settings


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["chance=1.5"], "chance=1.5 is a probability: it must be at most 1"),
        (["chance=-0.1"], "chance=-0.1 is too small"),
        (["start=0"], "start=0 is too small: it must be at least 1"),
        (["ramp=-1"], "ramp=-1 is too small"),
        (["functions_min=0"], "functions_min=0 is too small"),
        (["functions_min=3"], "functions_max=2 is below functions_min=3: raise it"),
        (["grow_every=-1"], "grow_every=-1 is too small"),
        (["chance=0.5", "task_types"], "is for deduction and abduction, and selfplay.task_types has neither"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_one_sentence(overrides, sentence):
    given = ["selfplay.task_types=[induction]" if part == "task_types" else f"selfplay.composite.{part}" for part in overrides]
    with pytest.raises(UserError, match=sentence) as caught:
        load_settings(given)
    assert "\n" not in str(caught.value)


# A run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_run_of_composite_prompts_goes_on_exactly_where_it_stopped(tmp_path):
    settings = ["selfplay.composite.chance=1", "selfplay.composite.functions_max=1", "selfplay.references=1", "eval.items=0"]
    finish(start(tmp_path / "whole", *settings, "selfplay.steps=2"))
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    again = [*settings, "selfplay.steps=2", f"resume={tmp_path / 'again' / 'checkpoints' / 'step_000001'}"]
    assert "resumed after step 1" in finish(start(tmp_path / "again", *again))
    assert state(tmp_path / "whole", 2) == state(tmp_path / "again", 2)
    triplets = [row for row in read_rollouts(tmp_path / "whole") if row["phase"] == "propose" and row["type"] != "induction"]
    assert {row["step"] for row in triplets} == {1, 2}
    assert all("# given\n```python\n" in row["prompt"] and "def g_0(" in row["prompt"] for row in triplets)
    metrics = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["composite/deduction/asked"] for line in metrics if line["step"]] == [1.0, 1.0]
