"""Right answers of earlier steps are in the batch once more, as they were drawn; nothing else is."""

import math
from dataclasses import replace

import pytest
import torch
from test_schedules import drive, scheduled
from test_step import completion, configured, self_play

from azr_nemo.selfplay.batch import Row
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import groups
from azr_nemo.selfplay.replay import Replay
from azr_nemo.selfplay.schedules import SCHEDULES
from azr_nemo.tasks.task import Role

SOLVES = [group for group, (role, _) in enumerate(groups()) if role is Role.SOLVE]


def stepped(play, number):
    """A step whose completions say which weights drew them."""
    return drive(play, number, version=number - 1)[0]


def right_rows(result) -> list:
    return [row for row in result.attempts if row.prompt.role is Role.SOLVE and row.advantage > 0]


def rows_of(batch, version) -> list[tuple]:
    """What the batch has of these weights: group, response, advantage."""
    columns = zip(batch.versions.tolist(), batch.groups.tolist(), batch.response_ids, batch.advantages[:, 0].tolist(), strict=True)
    return sorted((group, ids, round(advantage, 5)) for drawn, group, ids, advantage in columns if drawn == version)


def test_the_next_step_learns_once_more_from_what_was_right(tmp_path):
    play = self_play(tmp_path, configured(replay=1))
    first, second = stepped(play, 1), stepped(play, 2)
    assert first.metrics["train/replayed"] == 0
    right = right_rows(first)
    expected = sorted(
        (groups().index((Role.SOLVE, row.prompt.type)), row.completion.response_ids, round(row.advantage, 5)) for row in right
    )
    assert right
    assert rows_of(second.batch, 0) == expected
    assert second.metrics["train/replayed"] == len(right)
    assert second.metrics["train/rows"] == len(second.batch.prompt_ids) == len(second.attempts) + len(right)


def test_wrong_answers_and_proposals_are_learnt_from_once(tmp_path):
    play = self_play(tmp_path, configured(replay=1))
    first, second = stepped(play, 1), stepped(play, 2)
    assert any(row.advantage < 0 for row in first.attempts)
    assert any(row.advantage > 0 for row in first.attempts if row.prompt.role is Role.PROPOSE)
    old = second.batch.versions == 0
    assert (second.batch.advantages[old, 0] > 0).all()
    assert set(second.batch.groups[old].tolist()) <= set(SOLVES)


def test_an_answer_is_learnt_from_in_so_many_further_steps_and_then_no_more(tmp_path):
    play = self_play(tmp_path, configured(replay=2))
    results = [stepped(play, number) for number in range(1, 5)]
    versions = [set(result.batch.versions.tolist()) for result in results]
    assert versions == [{0}, {0, 1}, {0, 1, 2}, {1, 2, 3}]


def test_rows_are_in_the_order_of_their_groups_and_keep_their_log_probabilities(tmp_path):
    play = self_play(tmp_path, configured(replay=1))
    stepped(play, 1)
    batch = stepped(play, 2).batch
    assert batch.groups.tolist() == sorted(batch.groups.tolist())
    assert torch.equal(batch.rollout_logprobs, -0.5 * batch.mask)


def test_without_it_a_batch_is_of_its_own_step_alone(tmp_path):
    play = self_play(tmp_path)
    stepped(play, 1)
    result = stepped(play, 2)
    assert set(result.batch.versions.tolist()) == {1}
    assert "train/replayed" not in result.metrics
    assert play.buffer.read_note("replay") == {}


def test_a_resumed_run_replays_what_an_uninterrupted_one_does(tmp_path):
    play = self_play(tmp_path / "whole", configured(replay=1))
    stepped(play, 1)
    (tmp_path / "resumed").mkdir()
    (tmp_path / "resumed" / "tasks.db").write_bytes(play.buffer.image())
    whole = stepped(play, 2).batch
    resumed = self_play(tmp_path / "unused", configured(replay=1))
    buffer = TaskBuffer(tmp_path / "resumed" / "tasks.db", 100)
    resumed.proposer.buffer = resumed.solver.buffer = resumed.buffer = buffer
    resumed.replay = Replay(buffer, 1)
    again = stepped(resumed, 2).batch
    assert again.response_ids == whole.response_ids
    assert torch.equal(again.advantages, whole.advantages)


def test_a_step_that_is_repeated_does_not_replay_itself(tmp_path):
    buffer = TaskBuffer(tmp_path / "tasks.db", 100)
    row = Row(SOLVES[0], completion("1", 0), 1.0, 0.5)
    for _ in range(2):
        replay = Replay(buffer, 3)
        assert replay.rows(1) == []
        replay.keep(1, [row])
    assert Replay(buffer, 3).rows(2) == [row]


def test_a_known_answer_which_nobody_sampled_is_replayed_too(tmp_path):
    buffer = TaskBuffer(tmp_path / "tasks.db", 100)
    known = Row(SOLVES[0], replace(completion("1", 0), logprobs=(math.nan,) * 3), 1.0, 0.5)
    Replay(buffer, 1).keep(1, [known])
    (back,) = Replay(buffer, 1).rows(2)
    assert all(map(math.isnan, back.completion.logprobs))
    assert back.completion.response_ids == known.completion.response_ids


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_every_schedule_replays(tmp_path, schedule):
    play = scheduled(tmp_path, schedule, replay=1)
    stepped(play, 1)
    assert stepped(play, 2).metrics["train/replayed"] > 0
