"""The referee asks and grades as a run does, without torch and without a trainer."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import process_trees
import pytest
from answers import CASES, DEDUCTION, PROPOSAL, row

from azr_nemo.environments.referee import Referee, Reply, messages, settings
from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import ExecutorUnavailable
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.validation import Verifier, grade_rows
from azr_nemo.tasks.task import TaskType

SEEDS = Path(__file__).parents[1] / "data" / "seeds.jsonl"


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    with LocalPool(1) as running:
        yield running


@pytest.fixture
def referee(pool: LocalPool, tmp_path: Path) -> Iterator[Referee]:
    with TaskBuffer(tmp_path / "buffer.sqlite", 1000) as buffer:
        made = Referee(settings(["selfplay.induction_pairs=4"]), pool, buffer)
        made.seed()
        yield made


def test_it_is_there_without_torch_and_without_a_trainer_in_less_than_two_seconds():
    program = (
        "import json, sys, time\n"
        "import azr_nemo.environments.referee as referee\n"
        "referee.settings([])\n"
        "print(json.dumps([time.process_time(), [name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers', 'megatron')"
        " or name.startswith(('azr_nemo.trainer', 'azr_nemo.aligner', 'azr_nemo.megatron', 'azr_nemo.rollout'))]]))"
    )
    said = process_trees.run([sys.executable, "-c", program], check=True, timeout=60)
    seconds, loaded = json.loads(said.stdout)
    assert loaded == []
    assert seconds < 2


@pytest.mark.parametrize("case", range(len(CASES)))
def test_an_answer_is_graded_as_in_training(referee, pool, case):
    task, reply, answer, reward = CASES[case]
    graded = referee.grade(task, reply)
    assert graded.reward == reward
    if answer is not None:
        (alone,) = grade_rows([("here", row(task, answer))], Verifier(pool, pool.limits))
        assert (graded.score, graded.reason) == (alone["score"], alone["reason"])


def test_a_task_is_asked_for_in_two_messages(referee):
    asked = referee.ask(DEDUCTION)
    assert "expert Python programmer" in asked.system
    assert DEDUCTION.program in asked.user
    assert "f(3)" in asked.user
    assert asked.system not in asked.user


@pytest.mark.parametrize(("scores", "reward"), [([1, 0, 0, 0], 0.75), ([1, 1, 1, 0], 0.25), ([1, 1, 1, 1], -0.5), ([0, 0, 0, 0], -0.5)])
def test_a_new_task_earns_by_the_solvers_scores_and_enters_the_buffer(referee, scores, reward):
    proposed = referee.propose(TaskType.DEDUCTION, 0)
    task = referee.settle(proposed, Reply(PROPOSAL))
    assert task.output == "9"
    before = referee.buffer.count()
    assert referee.earn(proposed, scores) == reward
    assert referee.buffer.count() == before + 1
    stored = referee.buffer.get(proposed.task_id)
    assert (stored.attempts, stored.solved, stored.references) == (4, sum(scores), proposed.lineage)


def test_a_program_that_is_held_out_earns_nothing_and_enters_nowhere(referee, monkeypatch):
    monkeypatch.setattr(referee.config.eval, "items", 1)
    monkeypatch.setattr("azr_nemo.selfplay.proposer.is_held_out", lambda program: True)
    proposed = referee.propose(TaskType.DEDUCTION, 0)
    before = referee.buffer.count()
    assert referee.settle(proposed, Reply(PROPOSAL)) is None
    assert proposed.refusal == "held_out"
    assert referee.earn(proposed, []) == 0
    assert referee.buffer.count() == before


def test_a_task_that_is_there_already_is_a_duplicate_also_when_both_were_settled_at_once(referee):
    first, second = (referee.propose(TaskType.DEDUCTION, number) for number in (0, 1))
    assert referee.settle(first, Reply(PROPOSAL))
    assert referee.settle(second, Reply(PROPOSAL))
    referee.earn(first, [1, 0])
    assert referee.earn(second, [1, 0]) == referee.config.reward.duplicate
    third = referee.propose(TaskType.DEDUCTION, 2)
    assert referee.settle(third, Reply(PROPOSAL)) is None
    assert third.refusal == "duplicate"


@pytest.mark.parametrize(
    ("text", "refusal", "reward"),
    [
        ("a puzzle", "format", -1.0),
        ("```python\ndef f(x):\n    import os\n    return os.getcwd()\n\nf(1)\n```", "import", -1.0),
        ("```python\ndef f(x):\n    return 1 / x\n\nf(0)\n```", "error", -1.0),
    ],
)
def test_what_is_no_task_needs_no_solvers(referee, text, refusal, reward):
    proposed = referee.propose(TaskType.ABDUCTION, 0)
    assert referee.settle(proposed, Reply(text)) is None
    assert proposed.refusal == refusal
    assert referee.earn(proposed, []) == reward


def test_who_asks_again_by_the_same_number_answers_the_same_prompt(referee):
    texts = [messages(referee.propose(TaskType.DEDUCTION, number).row.prompt.text).user for number in (5, 5)]
    proposed = referee.propose(TaskType.DEDUCTION, 6)
    referee.settle(proposed, Reply(PROPOSAL))
    referee.earn(proposed, [1, 0])
    assert texts == [messages(referee.propose(TaskType.DEDUCTION, 5).row.prompt.text).user] * 2


def test_a_turn_to_solve_draws_what_was_proposed_and_a_seed_only_before(referee):
    first = referee.draw(TaskType.DEDUCTION, 0)
    assert first.is_seed
    proposed = referee.propose(TaskType.DEDUCTION, 0)
    referee.settle(proposed, Reply(PROPOSAL))
    referee.earn(proposed, [1, 0])
    assert referee.draw(TaskType.DEDUCTION, 0).id == first.id  # who asks again answers the same task
    drawn = referee.draw(TaskType.DEDUCTION, 1)
    assert drawn.id == proposed.task_id
    referee.record(drawn, referee.grade(drawn.task, Reply("RESULT: 9")))
    referee.record(drawn, referee.grade(drawn.task, Reply("RESULT: 8")))
    counted = referee.buffer.get(drawn.id)
    assert (counted.attempts, counted.solved) == (4, 2)


def test_a_buffer_without_tasks_of_a_type_is_said(pool, tmp_path):
    with TaskBuffer(tmp_path / "buffer.sqlite", 1000) as buffer:
        with pytest.raises(UserError, match="the buffer holds no induction task"):
            Referee(settings([]), pool, buffer).draw(TaskType.INDUCTION, 0)


def test_a_task_with_nothing_left_to_teach_comes_last(pool, tmp_path):
    with TaskBuffer(tmp_path / "buffer.sqlite", 1000) as buffer:
        made = Referee(settings(["selfplay.retire_easy=0.9", "selfplay.retire_after=2"]), pool, buffer)
        made.seed()
        known = buffer.add(DEDUCTION, 1)
        buffer.record(known, 4, 4)
        assert made.draw(TaskType.DEDUCTION, 0).is_seed
        for stored in buffer.tasks(TaskType.DEDUCTION):
            buffer.record(stored.id, 4, 4)
        assert made.draw(TaskType.DEDUCTION, 1) is not None


def test_a_new_task_is_not_paid_before_somebody_tried_it(referee):
    proposed = referee.propose(TaskType.DEDUCTION, 0)
    referee.settle(proposed, Reply(PROPOSAL))
    with pytest.raises(ValueError, match="solver's replies"):
        referee.earn(proposed, [])


def test_a_dead_sandbox_is_no_verdict(tmp_path):
    with TaskBuffer(tmp_path / "buffer.sqlite", 1000) as buffer:
        dead = LocalPool(1)
        dead.close()
        with pytest.raises(ExecutorUnavailable):
            Referee(settings([]), dead, buffer).grade(*CASES[5][:2])


def test_seed_files_are_run_again_and_prompts_are_those_of_a_chat_model(pool, tmp_path):
    with TaskBuffer(tmp_path / "buffer.sqlite", 1000) as buffer:
        made = Referee(settings([f"data.seed_files=[{SEEDS}]", "selfplay.task_types=[deduction]"]), pool, buffer)
        assert any("rows accepted" in sentence for sentence in made.seed())
        assert {stored.task.type for stored in made.tasks()} == {TaskType.DEDUCTION}
        assert len(made.tasks()) > 1
    with pytest.raises(UserError, match="choose chat or chat_thoughts"):
        settings(["selfplay.prompt_style=r1"])
    with pytest.raises(UserError, match=r"selfplay\.task_types"):
        settings(["selfplay.task_types=[riddles]"])
