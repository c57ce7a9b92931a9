"""A few rollouts of each step are kept, fairly over the groups, and the same ones when a step is done again."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.observe.jsonl import read_rows
from azr_nemo.observe.rollouts import Rollout, RolloutLog, choose
from azr_nemo.tasks.task import Role, TaskType

GROUPS = [(role, kind) for role in Role for kind in TaskType]


def rollouts(per_group=5, groups=GROUPS):
    return [Rollout(role, kind, "p", f"c{i}", "right", 1.0, 0.5) for role, kind in groups for i in range(per_group)]


def test_a_rollout_is_one_line_with_all_it_knows(tmp_path):
    log = RolloutLog(tmp_path, per_step=1)
    log.write(4, [Rollout(Role.SOLVE, TaskType.ABDUCTION, "prompt", "done\n\x00\ud800", "wrong_value", -0.5, 0.25)], random.Random(1))
    assert list(read_rows(tmp_path / "rollouts.jsonl")) == [
        {
            "step": 4, "role": "solve", "type": "abduction", "prompt": "prompt", "completion": "done\n\x00\ud800",
            "outcome": "wrong_value", "reward": -0.5, "advantage": 0.25,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "most"), [(3, 1), (6, 1), (8, 2), (12, 2), (100, 5)])
def test_no_group_has_two_more_than_another(count, most):
    chosen = choose(rollouts(), count, random.Random(0))
    sizes = [sum((r.role, r.type) == group for r in chosen) for group in GROUPS]
    assert sum(sizes) == min(count, 30)
    assert max(sizes) == most
    assert max(sizes) - min(sizes) <= 1


def test_with_fewer_places_than_groups_every_group_has_its_turn():
    rng = random.Random(0)
    seen = {(r.role, r.type) for _ in range(60) for r in choose(rollouts(), 1, rng)}
    assert seen == set(GROUPS)


@given(st.integers(0, 2**32), st.integers(0, 12))
def test_the_same_state_of_rng_gives_the_same_choice(seed, count):
    first, second = (choose(rollouts(), count, random.Random(seed)) for _ in range(2))
    assert first == second


def test_none_wanted_or_none_there_is_no_row(tmp_path):
    assert RolloutLog(tmp_path, per_step=0).write(1, rollouts(), random.Random(0)) == []
    assert RolloutLog(tmp_path, per_step=4).write(1, [], random.Random(0)) == []
    assert list(read_rows(tmp_path / "rollouts.jsonl")) == []


def test_rewind_drops_later_steps_and_the_step_done_again_gives_the_same_rows(tmp_path):
    log = RolloutLog(tmp_path, per_step=4)
    for step in (1, 2, 3):
        log.write(step, rollouts(), random.Random(step))
    before = (tmp_path / "rollouts.jsonl").read_bytes()
    log.close()
    with (tmp_path / "rollouts.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "torn')
    again = RolloutLog(tmp_path, per_step=4)
    again.rewind(2)
    assert {row["step"] for row in read_rows(tmp_path / "rollouts.jsonl")} == {1, 2}
    again.write(3, rollouts(), random.Random(3))
    assert (tmp_path / "rollouts.jsonl").read_bytes() == before
