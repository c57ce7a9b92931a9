"""Rows for others' trainers hold the prompt and all that the grader needs, and verl's reward function grades them."""

import json
import sys

import pytest
from answers import CASES, DEDUCTION, INDUCTION
from servers import OurServer

from azr_nemo.environments.referee import task_of
from azr_nemo.environments.rows import main, rows_for
from azr_nemo.environments.verl_reward import compute_score
from azr_nemo.errors import UserError


def test_a_row_gives_the_task_back():
    gym, verl = (json.loads(json.dumps(rows_for([DEDUCTION, INDUCTION], form))) for form in ("nemo_gym", "verl"))
    assert [task_of(row["task"]) for row in gym] == [DEDUCTION, INDUCTION]
    assert [task_of(json.loads(row["reward_model"]["ground_truth"])) for row in verl] == [DEDUCTION, INDUCTION]
    assert [message["role"] for message in gym[0]["responses_create_params"]["input"]] == ["system", "user"]
    assert gym[0]["responses_create_params"]["input"] == verl[0]["prompt"]
    with pytest.raises(UserError, match="a task needs type, program"):
        task_of({"type": "deduction"})


@pytest.mark.slow
def test_verls_reward_function_grades_on_a_server_of_the_executor(monkeypatch):
    """What a cluster does: verl's reward workers send programs to `azr-nemo sandbox serve`."""
    with OurServer("--workers", "1") as server:
        monkeypatch.setenv("AZR_NEMO_SANDBOX", server.url)
        for task, reply, _, reward in CASES:
            if reply.finished:
                truth = rows_for([task], "verl")[0]["reward_model"]["ground_truth"]
                assert compute_score("absolute_zero", reply.text, truth)["score"] == reward


def test_turns_of_self_play_are_rows_without_a_prompt(monkeypatch, capsys):
    """`python -m azr_nemo.environments.rows`"""
    monkeypatch.setattr(sys, "argv", ["rows", "--turns", "2", "--types", "deduction"])
    main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["turn"]["role"], row["turn"]["number"]) for row in rows] == [("propose", 0), ("solve", 0), ("propose", 1), ("solve", 1)]
    assert {row["turn"]["type"] for row in rows} == {"deduction"}
    assert [[said["role"] for said in row["responses_create_params"]["input"]] for row in rows] == [["system"]] * 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--turns", "0"], "--turns 0: give at least 1"),
        (["--turns", "1", "--types", "riddle"], "invalid choice: 'riddle'"),
        ([], "--turns"),
    ],
)
def test_what_are_no_turns_is_said(words, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rows", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
