"""Tasks whose answers all earned the same make room for others, in further rounds, under every schedule."""

import pytest
import test_step
from test_step import OPTIONS, completion, configured, proposals, self_play, solution

from azr_nemo.errors import UserError
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.selfplay.schedules import SCHEDULES
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import tagged
from azr_nemo.tasks.task import Role, TaskType

EASY = 4  # tasks that add so much or less are always solved, all others every second time


def play_of(folder, rounds, schedule="sequential") -> SelfPlay:
    config = configured(task_types=["deduction"], batch_size=8, solve_samples=2, proposals=2, solve_from="buffer", dynamic_sampling=rounds)
    config.advantage.name, config.advantage.filter_zero_variance = "hierarchical_grpo", True
    play = self_play(folder, config)
    play.schedule = SCHEDULES[schedule]
    return play


def drive(play, answered=None):
    """A step, and the batches that it asks for. answered: how many samples of a task are right; default: by EASY."""
    step, batches, answer = play.step(1), [], None
    while True:
        try:
            batch = step.send(answer)
        except StopIteration as stop:
            return stop.value, batches
        batches.append(batch)
        answer = [*map(answer_of(answered), batch.prompts)]


def answer_of(answered):
    def of(prompt):
        if prompt.role is Role.PROPOSE:
            return proposals([prompt])[0]
        right = KINDS[prompt.type].answer_text(solution(prompt), OPTIONS)
        added = int(solution(prompt)) - int(tagged(prompt.text.full, "input")[0])
        count = answered(added) if answered else 2 if added <= EASY else 1
        return [completion(right if k < count else "999", k) for k in range(prompt.samples)]

    return of


def rounds_of(batches) -> list[list[str]]:
    """The tasks of each round of solving, where it has a batch of its own."""
    return [[prompt.text.full for prompt in batch.prompts] for batch in batches if batch.phase == "solve"]


def test_tasks_that_teach_nothing_are_replaced_until_the_batch_is_full(tmp_path):
    """Six seeds and what is proposed, four of them easy: four groups are wanted, and three can be had."""
    result, batches = drive(play_of(tmp_path, rounds=5))
    rounds = rounds_of(batches)
    asked = [text for texts in rounds for text in texts]
    assert len(rounds[0]) == 4
    assert len(asked) == len(set(asked)), "none is asked twice in a step"
    assert len(asked) > 4
    solved = [row for row in result.attempts if row.prompt.role is Role.SOLVE]
    taught = {row.task_id for row in solved if row.advantage}
    assert len(taught) == 3
    assert result.metrics["solve/deduction/spread"] == pytest.approx(len(taught) / len(asked))


def test_without_it_one_round_is_all(tmp_path):
    _, batches = drive(play_of(tmp_path, rounds=0))
    assert [*map(len, rounds_of(batches))] == [4]


def test_a_full_batch_needs_no_further_round(tmp_path):
    _, batches = drive(play_of(tmp_path, rounds=5), answered=lambda added: 1)
    assert [*map(len, rounds_of(batches))] == [4]


def test_rounds_are_bounded_and_end_where_the_buffer_has_nothing_new(tmp_path):
    _, batches = drive(play_of(tmp_path / "bounded", rounds=1), answered=lambda added: 2)
    assert len(rounds_of(batches)) == 2
    play = play_of(tmp_path / "empty", rounds=9)
    _, batches = drive(play, answered=lambda added: 0)
    assert sum(map(len, rounds_of(batches))) == play.buffer.count(TaskType.DEDUCTION)


def test_a_repeated_step_draws_the_same_rounds(tmp_path):
    first, second = (rounds_of(drive(play_of(tmp_path / name, rounds=3))[1]) for name in "ab")
    assert first == second
    assert len(first) > 1


def test_every_answer_of_every_round_is_counted_in_the_buffer(tmp_path):
    play = play_of(tmp_path, rounds=9)
    drive(play, answered=lambda added: 0)
    assert [stored.attempts for stored in play.buffer.recent(TaskType.DEDUCTION, 0)] == [2] * 6


@pytest.mark.parametrize("schedule", ["merged", "pipelined"])
def test_the_rounds_join_whatever_else_is_asked_at_the_time(tmp_path, schedule):
    result, batches = drive(play_of(tmp_path, rounds=5, schedule=schedule), answered=lambda added: 2)
    rounds = [lanes["solve"] for batch in batches if "solve" in (lanes := dict(batch.lanes))]
    assert len(rounds) > 1
    assert sum(rounds) * 2 == sum(row.phase == "solve" for row in result.rollouts)


def test_single_answers_have_no_spread_to_speak_of(tmp_path):
    result, _ = test_step.drive(self_play(tmp_path))
    assert not any(name.endswith("/spread") for name in result.metrics)


@pytest.mark.parametrize("words", [[], ["selfplay.solve_samples=2"], ["advantage.filter_zero_variance=true"]])
def test_it_needs_several_answers_and_the_filter(words):
    with pytest.raises(UserError, match=r"selfplay\.dynamic_sampling=2 replaces tasks .*: set selfplay\.solve_samples=2"):
        load_settings(["recipe=tiny-1n0g-megatron", "selfplay.solve_samples=1", *words, "selfplay.dynamic_sampling=2"])


def test_with_both_it_is_taken():
    words = ["selfplay.solve_samples=2", "advantage.filter_zero_variance=true", "selfplay.dynamic_sampling=2"]
    assert load_settings(["recipe=tiny-1n0g-megatron", *words]).selfplay.dynamic_sampling == 2
