"""The controls of benchmarks/learning.py spoil the advantages, and nothing else; what an arm has answered is counted by whole programs."""

import importlib.util
import random
from collections import Counter
from pathlib import Path
from typing import Any

from azr_nemo.selfplay.exchange import Attempt, Completion, Prompt
from azr_nemo.settings.compose import ROOT
from azr_nemo.tasks.task import PromptText, Role, TaskType


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


learning_arm = script("learning_arm")

ADVANTAGES = [2.0, -1.0, 0.0, 0.5, -0.25, 0.0, 1.5, -3.0]


def judged() -> list[Attempt]:
    rows = []
    for role in Role:
        for kind in TaskType:
            prompt = Prompt(PromptText("", ""), role, kind, 1, 8, 1.0)
            for advantage in ADVANTAGES:
                rows.append(Attempt(prompt, Completion("", (1,), (2,), (-1.0,), True), advantage, "", advantage=advantage))
    return rows


def test_shuffled_advantages_stay_within_their_role_and_task_type():
    rows = judged()
    learning_arm.shuffled(rows, random.Random(1))
    assert [row.advantage for row in rows] != [row.reward for row in rows]
    for start in range(0, len(rows), len(ADVANTAGES)):
        assert Counter(row.advantage for row in rows[start : start + len(ADVANTAGES)]) == Counter(ADVANTAGES)


def test_zero_advantages_leave_the_same_rows_in_the_update():
    rows = judged()
    learning_arm.zero(rows, random.Random(1))
    assert all(abs(row.advantage) < 1e-20 for row in rows)
    assert [bool(row.advantage) for row in rows] == [bool(row.reward) for row in rows]


def test_what_an_arm_has_answered_is_counted_by_programs(tmp_path: Path):
    out = tmp_path / "arm.jsonl"
    assert learning_arm.answered(out) == 0
    out.write_text("{}\n" * 2 * len(TaskType))
    assert learning_arm.answered(out) == 2
