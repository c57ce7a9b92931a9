"""Seeding from the model itself: reaches its target, resumes, is bounded, and says why when it fails."""

import ast
from collections import Counter
from itertools import count

import pytest
from sample_tasks import FakeExecutor, adder, adder_task, run_adder

from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Request, Status
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completion
from azr_nemo.selfplay.proposer import Proposer
from azr_nemo.selfplay.self_seeding import SeedingLoop, add_seeds, zero_tasks
from azr_nemo.selfplay.validation import Validator
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS, triplets
from azr_nemo.tasks.program import check, parse_arguments
from azr_nemo.tasks.task import PromptOptions, Proposal, Refusal, TaskType

DEDUCTION, ABDUCTION, INDUCTION = TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION
OPTIONS = PromptOptions(style="completion", pairs=4)


@pytest.fixture
def buffer(tmp_path):
    with TaskBuffer(tmp_path / "tasks.sqlite", capacity=1000) as buffer:
        yield buffer


def config(**changes):
    config = RunConfig()
    config.selfplay.batch_size, config.data.seed_batch, config.data.seed_factor, config.data.seed_rounds = 4, 4, 2, 5
    config.selfplay.references = 2
    for name, value in changes.items():
        section = config.data if name.startswith("seed_") else config.selfplay
        setattr(section, name, value)
    return config


def loop(buffer, settings, executor=None, on_progress=None):
    validator = Validator(executor or FakeExecutor(), Limits())
    return SeedingLoop(Proposer(buffer, validator, OPTIONS, settings, lambda text: True), on_progress)


def written(type, number):
    """A completion that proposes an adder, or four inputs for the program it was shown."""
    inputs = tuple(str(number + i) for i in range(4)) if type is INDUCTION else ("1",)
    text = KINDS[type].proposal_text(Proposal(type, adder(number), inputs, f"Tell {number}."), OPTIONS)
    return Completion(text, (1,), (2,), (0.0,), finished=True)


def drive(run, write, rounds=None, early=False):
    """Plays the engine. rounds: batches to answer before the run is dropped, as by a kill. Returns the answered batches and the result."""
    batches, answers = [], None
    while True:
        try:
            batch = run.send(answers)
        except StopIteration as stop:
            return batches, stop.value
        if len(batches) == rounds:
            run.close()
            return batches, None
        batches.append(batch)
        answers = [[write(prompt.type)] for prompt in batch.prompts]
        if early:
            for i, completions in enumerate(answers):
                batch.on_completion(i, 0, completions[0])


def numbered(start=100):
    numbers = count(start)
    return lambda type: written(type, next(numbers))


def test_the_zero_tasks_are_one_per_type_and_hold():
    tasks = zero_tasks()
    assert [task.type for task in tasks] == list(TaskType)
    for task in tasks:
        assert not isinstance(check(task.program, ()), Refusal)
        assert not any(isinstance(parse_arguments(text), Refusal) for text in task.inputs)
        assert [outcome.value for outcome in run_adder(Request(task.program, task.inputs))] == list(task.outputs)
        assert all(repr(ast.literal_eval(output)) == output for output in task.outputs)
    assert len(tasks[2].inputs) == 6


def test_the_zero_tasks_are_stored_once(buffer):
    assert add_seeds(buffer, zero_tasks()) == 3
    assert add_seeds(buffer, zero_tasks()) == 0
    assert buffer.statistics().seeds == 3


def test_seeding_reaches_its_target_for_every_type(buffer):
    batches, seeded = drive(loop(buffer, config()).run(), numbered())
    assert all(buffer.count(type) >= 8 for type in TaskType)
    assert {batch.phase for batch in batches} == {"seed"}
    assert {len(batch.prompts) for batch in batches} == {4}
    assert {(s.step, s.is_seed) for s in buffer.tasks()} == {(0, True)}
    assert seeded.warnings == []
    assert [(end.stage, end.target) for end in seeded.stages] == [("triplets", 8), ("induction", 8)]


def test_both_proposers_write_triplets_and_each_triplet_is_a_task_of_both_types(buffer):
    batches, _ = drive(loop(buffer, config()).run(), numbered())
    assert Counter(prompt.type for prompt in batches[0].prompts) == {DEDUCTION: 2, ABDUCTION: 2}
    programs = [[s.task.program for s in buffer.tasks(type)] for type in triplets()]
    assert programs[0] == programs[1]


def test_induction_describes_programs_of_the_triplets(buffer):
    drive(loop(buffer, config()).run(), numbered())
    programs = {s.task.program for s in buffer.tasks(*triplets())}
    assert {s.task.program for s in buffer.tasks(INDUCTION)} <= programs
    assert all(s.references for s in buffer.tasks(INDUCTION)[1:])


def test_prompts_sample_at_the_rollout_temperature(buffer):
    settings = config()
    settings.rollout.temperature, settings.rollout.max_propose_tokens = 0.7, 99
    batches, _ = drive(loop(buffer, settings).run(), numbered())
    assert {(p.temperature, p.max_new_tokens, p.samples) for batch in batches for p in batch.prompts} == {(0.7, 99, 1)}


def test_execution_starts_as_completions_arrive(buffer):
    executor = FakeExecutor()
    run = loop(buffer, config(), executor).run()
    batch = next(run)
    batch.on_completion(2, 0, written(DEDUCTION, 7))
    assert len(executor.requests) == 1
    run.send([[written(DEDUCTION, n)] for n in (5, 6, 7, 8)])
    assert len(executor.requests) == 4


def test_early_and_late_arrival_give_the_same_buffer(tmp_path):
    stored = []
    for early in (False, True):
        with TaskBuffer(tmp_path / str(early), capacity=1000) as buffer:
            drive(loop(buffer, config()).run(), numbered(), early=early)
            stored.append(buffer.tasks())
    assert stored[0] == stored[1]


@pytest.mark.parametrize("rounds", range(4))
def test_a_killed_run_goes_on_to_the_same_buffer(tmp_path, rounds):
    with TaskBuffer(tmp_path / "whole", capacity=1000) as buffer:
        whole, _ = drive(loop(buffer, config()).run(), numbered())
        expected = buffer.tasks()
    write = numbered()
    with TaskBuffer(tmp_path / "cut", capacity=1000) as buffer:
        drive(loop(buffer, config()).run(), write, rounds=rounds)
    with TaskBuffer(tmp_path / "cut", capacity=1000) as buffer:
        rest, _ = drive(loop(buffer, config()).run(), write)
        assert buffer.tasks() == expected
    assert [b.prompts for b in rest] == [b.prompts for b in whole[rounds:]]


def test_nothing_is_asked_when_the_buffer_is_full_enough(buffer):
    drive(loop(buffer, config()).run(), numbered())
    batches, seeded = drive(loop(buffer, config()).run(), numbered())
    assert batches == []
    assert seeded.warnings == []


def test_a_model_that_writes_nonsense_ends_in_a_sentence_with_counts_and_reasons(buffer):
    nonsense = Completion("I would rather not.", (1,), (2,), (0.0,), finished=True)
    truncated = Completion("def", (1,), (2,), (0.0,), finished=False)
    answers = iter([nonsense, nonsense, nonsense, truncated] * 5)
    with pytest.raises(
        UserError, match=r"1 of 8 valid tasks per type in 5 batches; refused: format 15, truncated 5\. Raise data\.seed_rounds"
    ):
        drive(loop(buffer, config()).run(), lambda type: next(answers))


def test_a_fruitless_round_is_not_repeated_word_for_word(buffer):
    add_seeds(buffer, [adder_task(i, type) for i in range(6) for type in triplets()])
    nonsense = Completion("No.", (1,), (2,), (0.0,), finished=True)
    batches, _ = drive(loop(buffer, config()).run(), lambda type: nonsense, rounds=3)
    assert len({tuple(prompt.text for prompt in batch.prompts) for batch in batches}) == 3


def test_the_bound_holds_over_restarts(buffer):
    nonsense = Completion("No.", (1,), (2,), (0.0,), finished=True)
    drive(loop(buffer, config()).run(), lambda type: nonsense, rounds=3)
    asked = []
    with pytest.raises(UserError, match="in 5 batches; refused: format 20"):
        drive(loop(buffer, config()).run(), lambda type: asked.append(type) or nonsense)
    assert len(asked) == 2 * 4


def test_repetition_is_refused_as_duplicate(buffer):
    with pytest.raises(UserError, match=r"2 of 8 valid .* refused: duplicate 19"):
        drive(loop(buffer, config()).run(), lambda type: written(type, 5))


def test_a_batch_worth_of_tasks_is_enough_to_go_on_with_a_warning(buffer):
    numbers = count(100)

    def write(type):
        number = next(numbers)
        return written(type, number if number % 4 == 0 else 100)

    _, seeded = drive(loop(buffer, config(seed_rounds=4, task_types=["deduction"])).run(), write)
    assert buffer.count(DEDUCTION) == 5
    (warning,) = seeded.warnings
    assert "5 of 8" in warning
    assert "goes on" in warning


def test_several_answers_to_a_task_make_fewer_tasks_enough(buffer):
    _, seeded = drive(loop(buffer, config(seed_rounds=1, solve_samples=4, task_types=["deduction"])).run(), lambda type: written(type, 5))
    assert buffer.count(DEDUCTION) == 2
    (warning,) = seeded.warnings
    assert "2 of 8" in warning


def test_without_induction_no_induction_is_asked_for(buffer):
    batches, _ = drive(loop(buffer, config(task_types=["deduction", "abduction"])).run(), numbered())
    assert INDUCTION not in {prompt.type for batch in batches for prompt in batch.prompts}


def test_progress_is_told_after_each_batch(buffer):
    told = []
    batches, _ = drive(loop(buffer, config(), on_progress=told.append).run(), numbered())
    assert len(told) == len(batches)
    assert (told[0].stage, told[0].round, told[0].rounds, told[0].valid) == ("triplets", 1, 5, 5)


def test_a_dead_sandbox_stops_seeding_and_stores_nothing_of_the_round(buffer):
    def die(request):
        raise ExecutorUnavailable("gone")

    with pytest.raises(ExecutorUnavailable):
        drive(loop(buffer, config(), FakeExecutor(die)).run(), numbered())
    assert buffer.count() == 3
    assert buffer.read_note("seeding/triplets") == {}


def test_in_the_real_sandbox_the_zero_tasks_hold_and_seeding_gives_the_same_buffer(tmp_path):
    stored = []
    with LocalPool(workers=1) as sandbox:
        zeros = zero_tasks()
        assert Validator(sandbox, Limits()).validate([Proposal(t.type, t.program, t.inputs, t.message) for t in zeros]) == zeros
        for name, executor in (("real", sandbox), ("fake", FakeExecutor())):
            with TaskBuffer(tmp_path / name, capacity=1000) as buffer:
                drive(loop(buffer, config(), executor).run(), numbered(), early=True)
                stored.append(buffer.tasks())
    assert stored[0] == stored[1]


def test_seeds_that_share_a_prompt_are_asked_for_together(buffer):
    batches, _ = drive(loop(buffer, config(propose_samples=2)).run(), numbered())
    for batch in batches:
        texts = [prompt.text.full for prompt in batch.prompts]
        assert len(texts) == 4
        assert texts[::2] == texts[1::2]


def test_a_program_that_ignores_its_input_seeds_deduction_alone(buffer):
    constant = "def f(x):\n    return 'Alice'"
    text = KINDS[DEDUCTION].proposal_text(Proposal(DEDUCTION, constant, ("7",)), OPTIONS)

    def run(request: Request) -> list:
        return [Outcome(Status.OK, "'Alice'")] * len(request.inputs) if "Alice" in request.program else run_adder(request)

    numbers = count(100)

    def write(type):
        number = next(numbers)
        return Completion(text, (1,), (2,), (0.0,), finished=True) if number == 100 else written(type, number)

    drive(loop(buffer, config(refuse_ignored_input=True), FakeExecutor(run)).run(), write)
    assert constant in [stored.task.program for stored in buffer.tasks(DEDUCTION)]
    assert constant not in [stored.task.program for stored in buffer.tasks(ABDUCTION)]
